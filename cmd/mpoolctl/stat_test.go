package main

import (
	"context"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
)

func TestStat(t *testing.T) {
	d := newFakeDaemon("data")
	v := decode[map[string]any](t, ok(t, d, "--json", "stat", "data"))
	if m := missingFields(v, "time pool uptime_s sessions handles reaped operations drives"); m != nil {
		t.Errorf("no %v", m)
	}
	op := v["operations"].([]any)[0].(map[string]any)
	if m := missingFields(op, "op count errors bytes mean_us p50_us p99_us p999_us"); m != nil {
		t.Errorf("operation: no %v", m)
	}
	if op["mean_us"] != 1000.0 || op["p50_us"] != 16.0 || op["p99_us"] != 512.0 || op["p999_us"] != 512.0 {
		t.Errorf("%v", op)
	}
	drive := v["drives"].([]any)[0].(map[string]any)
	if m := missingFields(drive, "path reads writes flushes discards read_bytes write_bytes errors flush_failures"); m != nil {
		t.Errorf("drive: no %v", m)
	}
	if r := ctl(t, d, "", "stat", "nope"); r.code != exitFailed || !strings.Contains(r.errOut, "(ENOENT)") {
		t.Errorf("%+v", r)
	}
}

// With an interval the second look shows only what is new.
func TestStatInterval(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	d, looks := newFakeDaemon(), 0
	d.looked = func() {
		if looks++; looks == 3 {
			cancel(api.Errorf(api.ECANCELED, "", "interrupted"))
		}
	}
	r := ctlContext(ctx, d, strings.NewReader(""), "--json", "stat", "--interval", "1ms")
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	if r.code != exitDone || len(lines) < 2 {
		t.Fatalf("%+v", r)
	}
	v := decode[statView](t, lines[1])
	if v.Operations[0].Count != 0 || v.Operations[0].P50US != 0 || v.Drives[0].Reads != 0 {
		t.Errorf("%+v", v)
	}
}

func TestVersion(t *testing.T) {
	v := decode[versionView](t, ok(t, newFakeDaemon(), "--json", "version"))
	if v.Daemon == nil || v.Daemon.PID != 4711 || v.Version == "" {
		t.Errorf("%+v", v)
	}
}
