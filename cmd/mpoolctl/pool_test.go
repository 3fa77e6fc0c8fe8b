package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mpool-go/mpool/api"
)

// fieldsOf returns the names of a JSON object's fields that are missing.
func missingFields(object map[string]any, want string) []string {
	var missing []string
	for name := range strings.FieldsSeq(want) {
		if _, ok := object[name]; !ok {
			missing = append(missing, name)
		}
	}
	return missing
}

const poolFields = `name uuid state health total_bytes used_bytes free_bytes mblocks mlogs drives`

func TestPoolJSONFields(t *testing.T) {
	d := newFakeDaemon()
	created := decode[map[string]any](t, ok(t, d, "--json", "pool", "create", "data", "/dev/a"))
	if m := missingFields(created, "name uuid zone_size drives overhead_bytes usable_bytes"); m != nil {
		t.Errorf("pool create: no %v", m)
	}
	for _, args := range [][]string{{"pool", "list"}, {"pool", "show", "data"}} {
		pools := decode[[]map[string]any](t, ok(t, d, append(args, "--json")...))
		if len(pools) != 1 {
			t.Fatalf("%v: %d pools", args, len(pools))
		}
		if m := missingFields(pools[0], poolFields); m != nil {
			t.Errorf("%v: no %v", args, m)
		}
		drive := pools[0]["drives"].([]any)[0].(map[string]any)
		if m := missingFields(drive, "path uuid class state size_bytes free_bytes"); m != nil {
			t.Errorf("%v: drive has no %v", args, m)
		}
		if pools[0]["used_bytes"].(float64)+pools[0]["free_bytes"].(float64) != pools[0]["total_bytes"].(float64) {
			t.Errorf("%v: used and free are not the total", args)
		}
	}
	for _, args := range [][]string{
		{"pool", "set", "data", "label=x", "mode=0600"},
		{"pool", "rename", "data", "other"},
		{"pool", "deactivate", "other"},
	} {
		pool := decode[map[string]any](t, ok(t, d, append(args, "--json")...))
		if m := missingFields(pool, poolFields); m != nil {
			t.Errorf("%v: no %v", args, m)
		}
	}
	if got := ok(t, d, "pool", "list", "--json"); got != "[]\n" {
		t.Errorf("no pools are %q", got)
	}
}

func TestClassAppliesToDevicesAfterIt(t *testing.T) {
	for _, tc := range []struct {
		args string
		want string
	}{
		{"pool create p /a /b", "/a capacity /b capacity"},
		{"pool create p /a --class staging /b /c", "/a capacity /b staging /c staging"},
		{"pool create --class staging p /a --class capacity /b", "/a staging /b capacity"},
		{"pool create --class staging --class capacity p /a --zone 1MiB /b --class=staging /c", "/a capacity /b capacity /c staging"},
	} {
		v := decode[poolCreated](t, ok(t, newFakeDaemon(), append(strings.Fields(tc.args), "--json")...))
		got := map[string]string{}
		for _, drive := range v.Drives {
			got[drive.Path] = drive.Class
		}
		want := map[string]string{}
		f := strings.Fields(tc.want)
		for i := 0; i < len(f); i += 2 {
			want[f[i]] = f[i+1]
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", tc.args, d)
		}
	}
}

func TestDestroyAsks(t *testing.T) {
	d := newFakeDaemon("data")
	r := ctl(t, d, "yes\n", "pool", "destroy", "data")
	if r.code != exitUsage || !strings.Contains(r.errOut, "--yes") || d.pools["data"] == nil {
		t.Fatalf("without a terminal: %+v", r)
	}
	for _, tc := range []struct {
		answer string
		code   int
	}{{"n\n", exitFailed}, {"", exitFailed}, {"yes\n", exitDone}} {
		var out, errOut strings.Builder
		a := &app{
			stdin: strings.NewReader(tc.answer), stdout: &out, stderr: &errOut,
			dial:     dialFake(d),
			terminal: func(any) bool { return true },
		}
		if code := a.execute(t.Context(), []string{"pool", "destroy", "data"}); code != tc.code {
			t.Errorf("answer %q: exit %d: %s", tc.answer, code, errOut.String())
		}
	}
	if d.pools["data"] != nil {
		t.Error("the pool is still there")
	}
	d = newFakeDaemon("data")
	if r := ctl(t, d, "", "pool", "destroy", "data", "--yes"); r.code != exitDone || d.pools["data"] != nil {
		t.Errorf("with --yes: %+v", r)
	}
}

func TestFailureIsReported(t *testing.T) {
	d := newFakeDaemon("data")
	r := ctl(t, d, "", "--json", "pool", "show", "nope")
	if r.code != exitFailed {
		t.Fatalf("exit %d", r.code)
	}
	want := `mpoolctl: pool show: there is no active pool "nope" (ENOENT)` + "\n"
	if r.errOut != want {
		t.Errorf("stderr %q, want %q", r.errOut, want)
	}
	v := decode[map[string]failureView](t, r.out)["error"]
	if v.Code != "ENOENT" || v.Message != `there is no active pool "nope"` {
		t.Errorf("stdout %+v", v)
	}

	d.err = &api.Error{Code: api.EIO, Op: "pool list", Device: "/dev/sdz", Offset: 4096, Detail: "the drive failed the read"}
	r = ctl(t, d, "", "--json", "pool", "list")
	v = decode[map[string]failureView](t, r.out)["error"]
	if r.code != exitFailed || v.Code != "EIO" || v.Device != "/dev/sdz" || v.Offset == nil || *v.Offset != 4096 {
		t.Errorf("%+v: %+v", r, v)
	}
	if want := "mpoolctl: pool list: the drive failed the read at /dev/sdz+4096 (EIO)\n"; r.errOut != want {
		t.Errorf("stderr %q, want %q", r.errOut, want)
	}
}

func TestRoots(t *testing.T) {
	d := newFakeDaemon("data")
	got := ok(t, d, "--json", "root", "set", "data", "a=0100000000000001", "b=c=0x0100000000000002")
	want := `[{"name":"a","id":"0100000000000001"},{"name":"b=c","id":"0100000000000002"}]` + "\n"
	if got != want {
		t.Errorf("set: %s", got)
	}
	ok(t, d, "root", "set", "data", "copy=@a")
	ok(t, d, "root", "unset", "data", "b=c")
	got = ok(t, d, "--json", "root", "list", "data")
	want = `[{"name":"a","id":"0100000000000001"},{"name":"copy","id":"0100000000000001"}]` + "\n"
	if got != want {
		t.Errorf("list: %s", got)
	}
	for _, args := range []string{"root unset data nope", "root set data x=@nope", "mblock show data @nope"} {
		if r := ctl(t, d, "", strings.Fields(args)...); r.code != exitFailed || !strings.Contains(r.errOut, "(ENOENT)") {
			t.Errorf("%s: %+v", args, r)
		}
	}
}
