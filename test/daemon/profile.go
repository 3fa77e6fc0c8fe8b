package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// Profile returns one of the daemon's profiles of Go's runtime, as text, such
// as "goroutine?debug=1". The daemon must have been started with
// Options.Profiles.
func (d *Daemon) Profile(name string) string {
	d.tb.Helper()
	return d.page("debug/pprof/" + name)
}

// Metrics returns the daemon's metrics whose names begin with one of those given, by
// name and labels. As Profile.
func (d *Daemon) Metrics(names ...string) map[string]string {
	d.tb.Helper()
	values := map[string]string{}
	for line := range strings.Lines(d.page("metrics")) {
		for _, name := range names {
			if strings.HasPrefix(line, name) {
				at := strings.LastIndexByte(line, ' ')
				values[line[:at]] = strings.TrimSpace(line[at:])
			}
		}
	}
	return values
}

// page returns what the daemon serves under a path.
func (d *Daemon) page(path string) string {
	d.tb.Helper()
	t := &http.Transport{
		DisableKeepAlives: true, // no connection stays
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var n net.Dialer
			return n.DialContext(ctx, "unix", d.metrics)
		},
	}
	defer t.CloseIdleConnections()
	c := &http.Client{Transport: t, Timeout: Patience}
	resp, err := c.Get("http://mpoold/" + path)
	if err != nil {
		d.tb.Fatalf("%s: %v\n%s", path, err, d.Log())
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		d.tb.Fatalf("%s: %v, %v: %s", path, resp.Status, err, b)
	}
	return string(b)
}

// Heap returns the bytes of the daemon's memory that are reachable, as of a
// collection made for it.
func (d *Daemon) Heap() int64 {
	d.tb.Helper()
	// The second collection frees what pools still had from before the first.
	d.Profile("heap?gc=1&debug=1")
	for line := range strings.Lines(d.Profile("heap?gc=1&debug=1")) {
		var n int64
		if k, err := fmt.Sscanf(line, "# HeapAlloc = %d", &n); err == nil && k == 1 {
			return n
		}
	}
	d.tb.Fatal("a heap profile without its size")
	return 0
}

// Goroutines counts the daemon's goroutines by what created them. The runtime's
// own are left out, and those that serve profiles.
func (d *Daemon) Goroutines() map[string]int {
	d.tb.Helper()
	count := goroutines(d.Profile("goroutine?debug=2"))
	for by := range count {
		if strings.HasPrefix(by, "net/http.") {
			delete(count, by)
		}
	}
	return count
}

// goroutines counts those of a traceback, by creator.
func goroutines(trace string) map[string]int {
	count := map[string]int{}
	for g := range strings.SplitSeq(trace, "\n\n") {
		if !strings.HasPrefix(g, "goroutine ") || strings.HasPrefix(g, "goroutine 0 ") {
			continue
		}
		by := "main"
		for line := range strings.Lines(g) {
			if s, ok := strings.CutPrefix(line, "created by "); ok {
				by, _, _ = strings.Cut(strings.TrimSpace(s), " in goroutine")
			}
		}
		if !strings.HasPrefix(by, "runtime.") {
			count[by]++
		}
	}
	return count
}
