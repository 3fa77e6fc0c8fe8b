package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
)

// newLog makes an mlog and returns its id.
func newLog(t *testing.T, d *fakeDaemon) string {
	t.Helper()
	v := decode[map[string]any](t, ok(t, d, "--json", "mlog", "create", "data", "--capacity", "4MiB"))
	if m := missingFields(v, "id capacity generation"); m != nil {
		t.Fatalf("mlog create: no %v", m)
	}
	return v["id"].(string)
}

func TestAppendLinesAndRead(t *testing.T) {
	var text strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&text, "line %d %s\n", i, strings.Repeat("z", i%200))
	}
	for _, args := range [][]string{{"--lines"}, {"--lines", "--sync"}} {
		d := newFakeDaemon("data")
		id := newLog(t, d)
		r := ctl(t, d, text.String(), append([]string{"--json", "mlog", "append", "data", id}, args...)...)
		want := fmt.Sprintf(`{"records":5000,"bytes":%d}`+"\n", text.Len()-5000)
		if r.code != exitDone || r.out != want {
			t.Fatalf("%v: %+v", args, r)
		}
		for _, o := range d.pools["data"].objects {
			if o.synced != 5000 || o.refs != 0 {
				t.Errorf("%v: %d records synced, %d references", args, o.synced, o.refs)
			}
		}
		if got := ok(t, d, "mlog", "read", "data", id); got != text.String() {
			t.Errorf("%v: read back %d other bytes", args, len(got))
		}
		if got := ok(t, d, "mlog", "read", "data", id, "--from", "4998", "--count", "1"); !strings.HasPrefix(got, "line 4998 ") {
			t.Errorf("from: %q", got)
		}
	}
}

func TestAppendLinesEdges(t *testing.T) {
	for in, want := range map[string]string{
		"":           "",
		"\n":         "\n",
		"a":          "a\n",
		"a\n\nb\r\n": "a\n\nb\r\n",
	} {
		d := newFakeDaemon("data")
		id := newLog(t, d)
		if r := ctl(t, d, in, "mlog", "append", "data", id, "--lines", "--sync", "-"); r.code != exitDone {
			t.Fatalf("%q: %+v", in, r)
		}
		if got := ok(t, d, "mlog", "read", "data", id); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}

func TestAppendWholeIsOneRecord(t *testing.T) {
	d := newFakeDaemon("data")
	id := newLog(t, d)
	record := string(bytes.Repeat([]byte{0, '\n', 0xff, 'a'}, 50_000))
	if r := ctl(t, d, record, "mlog", "append", "data", id, "--sync"); r.code != exitDone {
		t.Fatalf("%+v", r)
	}
	if got := ok(t, d, "mlog", "read", "data", id, "--raw"); got != record {
		t.Error("the record came back changed")
	}
	v := decode[recordView](t, ok(t, d, "--json", "mlog", "read", "data", id))
	if v.Text != nil || base64.StdEncoding.EncodeToString(v.Base64) != base64.StdEncoding.EncodeToString([]byte(record)) {
		t.Error("as JSON the record is another")
	}
	if r := ctl(t, d, strings.Repeat("x", api.MaxRecord+1), "mlog", "append", "data", id); r.code != exitFailed {
		t.Errorf("a record that is too long: %+v", r)
	}
}

func TestAppendFailureSaysWhatIsDurable(t *testing.T) {
	d := newFakeDaemon("data")
	id := newLog(t, d)
	d.pools["data"].failWrite, d.pools["data"].okWrites = api.Errorf(api.EFBIG, "mlog append", "the log is full"), 7
	r := ctl(t, d, strings.Repeat("x\n", 20), "mlog", "append", "data", id, "--lines", "--sync")
	if r.code != exitFailed || !strings.Contains(r.errOut, "7 records, 7 bytes, are durable") ||
		!strings.Contains(r.errOut, "mpoolctl: mlog append: the log is full (EFBIG)") {
		t.Errorf("%+v", r)
	}
}

func TestEraseAndDeleteLog(t *testing.T) {
	d := newFakeDaemon("data")
	id := newLog(t, d)
	if r := ctl(t, d, "", "mlog", "erase", "data", id); r.code != exitUsage {
		t.Errorf("erase without --yes: %+v", r)
	}
	v := decode[mlogCreated](t, ok(t, d, "--json", "--yes", "mlog", "erase", "data", id, "--min-generation", "9"))
	if v.Generation != 9 {
		t.Errorf("generation %d", v.Generation)
	}
	shown := decode[map[string]any](t, ok(t, d, "--json", "mlog", "show", "data", id))
	if m := missingFields(shown, "id state length capacity class owner refs created generation records"); m != nil {
		t.Errorf("show: no %v", m)
	}
	ok(t, d, "--yes", "mlog", "delete", "data", id)
	if r := ctl(t, d, "", "mlog", "show", "data", id); r.code != exitFailed {
		t.Errorf("show after delete: %+v", r)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{"a\tb": "a\tb", "\x1b[2J": ".[2J", "é\xffü": "é.ü", "a\nb": "a.b"} {
		if got := string(printable([]byte(in))); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
