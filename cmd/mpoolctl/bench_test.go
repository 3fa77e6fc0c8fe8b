package main

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
)

// Percentiles are never below what was measured, and at most a sixteenth above.
func TestLatencies(t *testing.T) {
	for ns := uint64(1); ns < 1<<40; ns += 1 + ns/7 {
		var l latencies
		l.add(time.Duration(ns))
		got := l.percentile(0.5) * 1e3
		if got < float64(ns)-0.5 || got > float64(ns)*(1+1.0/latencyParts)+0.5 {
			t.Fatalf("%d ns is %.1f", ns, got)
		}
		if i := bucketOf(ns); i > 0 && bucketEnd(i-1) >= float64(ns) {
			t.Fatalf("%d ns is in bucket %d, whose predecessor ends at %.0f", ns, i, bucketEnd(i-1))
		}
	}
	var l, sum latencies
	for i := range 1000 {
		l.add(time.Duration(i+1) * time.Microsecond)
	}
	sum.merge(&l)
	sum.merge(&l)
	for part, want := range map[float64]float64{0.5: 500, 0.99: 990, 0.999: 999} {
		if got := sum.percentile(part); math.Abs(got-want) > want/latencyParts {
			t.Errorf("p%v: %v, want %v", part*100, got, want)
		}
	}
	sum.add(math.MaxInt64)
	if got := sum.percentile(1); got < math.MaxInt64/1e3 {
		t.Errorf("the longest time is %v", got)
	}
	if got := new(latencies).percentile(0.5); got != 0 {
		t.Errorf("nothing has a median: %v", got)
	}
}

// The time of this process is known, that of none is not.
func TestTimeOf(t *testing.T) {
	if ownTime() <= 0 || timeOf(os.Getpid()) < ownTime()-time.Minute {
		t.Errorf("own %v", ownTime())
	}
	if got := timeOf(math.MaxInt32 >> 4); got != 0 {
		t.Errorf("of no process: %v", got)
	}
}

// What a bench cannot do is refused before anything is made.
func TestBenchRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"bench data frob":                       `row "frob": want one of append, client-read`,
		"bench data read --size 2GiB":           "want 1 byte to 1 GiB",
		"bench data append --size 2GiB":         "--size: append",
		"bench data write --size 1000":          "multiple of 4 KiB",
		"bench data read --depth 5000":          "want 1 to 1024",
		"bench data read --size 1GiB --depth 2": "more than 1 GiB of memory",
		"bench data append --zero-copy":         "want read or write",
		"bench data commit --async":             "blocking calls only",
		"bench data --time -1s":                 "want a duration",
	} {
		d := newFakeDaemon("data")
		if r := ctl(t, d, "", strings.Fields(line)...); r.code != exitUsage || !strings.Contains(r.errOut, want) {
			t.Errorf("%s: %+v", line, r)
		}
	}
	d := newFakeDaemon("data", "more")
	if r := ctl(t, d, "", "bench", "read"); r.code != exitUsage || !strings.Contains(r.errOut, "2 active pools") {
		t.Errorf("%+v", r)
	}
	d = newFakeDaemon("data")
	d.pools["data"].info.Space.Free = 8 << 20
	r := ctl(t, d, "", "--json", "bench", "write")
	if r.code != exitFailed || !strings.Contains(r.errOut, "it takes 8 MiB, and uses a quarter of the 8 MiB that are free") || !strings.Contains(r.out, `"code":"ENOSPC"`) {
		t.Errorf("%+v", r)
	}
	if committed, uncommitted, refs := d.pools["data"].count(); committed+uncommitted+refs != 0 {
		t.Errorf("%d, %d objects and %d references stay", committed, uncommitted, refs)
	}
}

// Every row measures, and leaves nothing: also when it fails, and when a run
// before it was killed.
func TestBenchLeavesNothing(t *testing.T) {
	d := newFakeDaemon("data")
	p := d.pools["data"]
	left, err := p.AllocMblock(t.Context(), api.AllocOptions{Capacity: 4096, Tag: benchTag})
	if err != nil {
		t.Fatal(err)
	}
	mine, err := p.AllocMblock(t.Context(), api.AllocOptions{Capacity: 4096, Tag: 7})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []api.Mblock{left, mine} {
		if err := m.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.Put(); err != nil {
			t.Fatal(err)
		}
	}
	alone := func(what string) {
		t.Helper()
		if committed, uncommitted, refs := p.count(); committed != 1 || uncommitted+refs != 0 {
			t.Errorf("%s: %d, %d objects and %d references stay", what, committed, uncommitted, refs)
		}
	}
	rows := "read write append commit client-read client-read-qd1 client-seq commit-rate mlog-client"
	out := ok(t, d, strings.Fields("--json bench data "+rows+" --time 20ms --data 16MiB")...)
	dec := json.NewDecoder(strings.NewReader(out))
	n := 0
	for ; dec.More(); n++ {
		var v benchView
		if err := dec.Decode(&v); err != nil {
			t.Fatal(err)
		}
		if v.Operations == 0 || v.P50US <= 0 || v.P999US < v.P50US || v.Seconds <= 0 || v.OperationsPerSecond <= 0 {
			t.Errorf("%+v", v)
		}
	}
	if n != 13 {
		t.Errorf("%d results", n)
	}
	alone("rows")
	p.okWrites, p.failWrite = 20, api.Errorf(api.EIO, "mblock write", "the drive is gone")
	for _, row := range []string{"read", "write", "commit"} {
		p.okWrites = 20
		if r := ctl(t, d, "", "bench", "data", row, "--time", "1m"); r.code != exitFailed || !strings.Contains(r.errOut, "the drive is gone") {
			t.Errorf("%s: %+v", row, r)
		}
		alone(row)
	}
}
