package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/server"
)

func TestParseEndpoint(t *testing.T) {
	for s, want := range map[string]string{
		"":                     "invalid AddrPort ",
		"127.0.0.1:9090":       "127.0.0.1:9090 ",
		"127.1.2.3:1":          "127.1.2.3:1 ",
		"localhost:9090":       "127.0.0.1:9090 ",
		"[::1]:9090":           "[::1]:9090 ",
		"[::ffff:127.0.0.1]:1": "127.0.0.1:1 ",
		"/run/m":               "invalid AddrPort /run/m",
		"unix:/run/../m":       "invalid AddrPort /m",
		// Refused:
		"0.0.0.0:9090": "", ":9090": "", "[::]:9090": "", "192.168.0.1:9090": "", "example.org:9090": "",
		"[fe80::1%lo]:9090": "", "[::1%lo]:9090": "", "127.0.0.1": "", "127.0.0.1:http": "", "127.0.0.1:99999": "",
		"unix:m": "", "unix:": "", "9090": "", "unix:@m": "", "127.0.0.1:-1": "", "2130706433:1": "",
	} {
		a, err := parseEndpoint(s)
		got := ""
		if err == nil {
			got = a.tcp.String() + " " + a.path
		}
		if got != want {
			t.Errorf("%q: %q, %v, want %q", s, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "want loopback") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// busy is a daemon with a pool in which a bit of everything was done.
func busy(t *testing.T, args ...string) (d *process, dev, socket string) {
	t.Helper()
	ctx := context.Background()
	dev, socket = drive(t), filepath.Join(shortDir(t), "s")
	d = spawn(t, socket, args...)
	p := pool(t, socket, dev)
	b, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write(ctx, pattern(1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ReadAtContext(ctx, make([]byte, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Mblock(ctx, b.ID()+1024); err == nil {
		t.Fatal("an object that is not there")
	}
	gone := hello(t, socket)
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	return d, dev, socket
}

// values reads the samples of a page of metrics.
func values(t *testing.T, text string) map[string]float64 {
	t.Helper()
	m := make(map[string]float64)
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		if strings.HasPrefix(s.Text(), "#") {
			continue
		}
		i := strings.LastIndexByte(s.Text(), ' ')
		v, err := strconv.ParseFloat(s.Text()[i+1:], 64)
		if err != nil {
			t.Fatal(err)
		}
		m[s.Text()[:i]] = v
	}
	return m
}

// The metrics say what was done, pass Prometheus's own rules, and are described
// in the operations page, all of them and nothing else.
func TestMetrics(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "m")
	d, dev, _ := busy(t, "--metrics", "unix:"+path)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", st, err)
	}
	var text string
	var v map[string]float64
	for end := time.Now().Add(stopTime); ; { // until the one that has gone is reaped, and its session over
		text = scrape(t, path)
		v = values(t, text)
		reaped := v[`mpool_sessions_reaped_total{cause="closed",detected_by="socket"}`] > 0
		if reaped && v[`mpool_sessions`] == 1 || time.Now().After(end) {
			break
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	for key, want := range map[string]func(float64) bool{
		`mpool_sessions`:    func(v float64) bool { return v == 1 },
		`mpool_handles`:     func(v float64) bool { return v >= 2 },
		`mpool_arena_bytes`: func(v float64) bool { return v >= 1<<20 },
		`mpool_sessions_reaped_total{cause="closed",detected_by="socket"}`:                func(v float64) bool { return v == 1 },
		`mpool_events_total{type="client_reaped"}`:                                        func(v float64) bool { return v == 1 },
		`mpool_events_total{type="corruption"}`:                                           func(v float64) bool { return v == 0 },
		`mpool_requests_total{op="mblock find"}`:                                          func(v float64) bool { return v == 1 },
		`mpool_request_errors_total{op="mblock find"}`:                                    func(v float64) bool { return v == 1 },
		`mpool_request_bytes_total{op="mblock write"}`:                                    func(v float64) bool { return v == 1<<20 },
		`mpool_request_bytes_total{op="mblock read"}`:                                     func(v float64) bool { return v == 1<<20 },
		`mpool_request_duration_seconds_count{op="mblock write"}`:                         func(v float64) bool { return v >= 1 },
		`mpool_request_duration_seconds_sum{op="mblock write"}`:                           func(v float64) bool { return v > 0 && v < 30 },
		`mpool_request_duration_seconds_bucket{op="mblock write",le="+Inf"}`:              func(v float64) bool { return v >= 1 },
		`mpool_request_duration_seconds_bucket{op="mblock write",le="1e-06"}`:             func(v float64) bool { return v == 0 },
		`mpool_pool_stored_bytes{pool="data"}`:                                            func(v float64) bool { return v == 1<<20 },
		`mpool_pool_objects{kind="mblock",pool="data"}`:                                   func(v float64) bool { return v == 1 },
		`mpool_pool_objects{kind="mlog",pool="data"}`:                                     func(v float64) bool { return v == 0 },
		`mpool_pool_health{health="optimal",pool="data"}`:                                 func(v float64) bool { return v == 1 },
		`mpool_pool_health{health="faulted",pool="data"}`:                                 func(v float64) bool { return v == 0 },
		`mpool_pool_read_only{pool="data"}`:                                               func(v float64) bool { return v == 0 },
		`mpool_pool_orphans{pool="data"}`:                                                 func(v float64) bool { return v == 0 },
		`mpool_pool_table_bytes{pool="data"}`:                                             func(v float64) bool { return v > 0 },
		fmt.Sprintf(`mpool_drive_bytes_total{drive=%q,op="write",pool="data"}`, dev):      func(v float64) bool { return v > 1<<20 },
		fmt.Sprintf(`mpool_drive_operations_total{drive=%q,op="flush",pool="data"}`, dev): func(v float64) bool { return v > 0 },
		fmt.Sprintf(`mpool_drive_operations_in_flight{drive=%q,pool="data"}`, dev):        func(v float64) bool { return v == 0 },
		fmt.Sprintf(`mpool_drive_errors_total{drive=%q,pool="data"}`, dev):                func(v float64) bool { return v == 0 },
		fmt.Sprintf(`mpool_drive_flush_failures_total{drive=%q,pool="data"}`, dev):        func(v float64) bool { return v == 0 },
		fmt.Sprintf(`mpool_drive_state{drive=%q,pool="data",state="online"}`, dev):        func(v float64) bool { return v == 1 },
		fmt.Sprintf(`mpool_drive_size_bytes{class="capacity",drive=%q,pool="data"}`, dev): func(v float64) bool { return v == 64<<20 },
		`process_open_fds`:                              func(v float64) bool { return v > 3 },
		`go_goroutines`:                                 func(v float64) bool { return v > 3 },
		`mpool_log_lines_dropped_total`:                 func(v float64) bool { return v == 0 },
		`mpool_config_reload_successful`:                func(v float64) bool { return v == 1 },
		`mpool_config_reload_success_timestamp_seconds`: func(v float64) bool { return v > 1e9 },
	} {
		if got, ok := v[key]; !ok || !want(got) {
			t.Errorf("%s is %v (%v)", key, got, ok)
		}
	}
	space := 0.0
	for key, v := range v {
		if strings.HasPrefix(key, "mpool_pool_space_bytes{") {
			space += v
		}
	}
	if space != 64<<20 {
		t.Errorf("the states of space add up to %v", space)
	}
	if !strings.Contains(text, "mpool_build_info{go_version=") {
		t.Error("no build")
	}
	if _, err := get(path, "/debug/pprof/"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("profiles: %v", err)
	}
	checkDescribed(t, text)
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
	if _, err := os.Lstat(path); err == nil {
		t.Error("the metrics socket was left behind")
	}
}

// checkDescribed compares the metrics with the table of the operations page.
func checkDescribed(t *testing.T, text string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var described []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(mpool_[a-z_]+)").FindAllSubmatch(page, -1) {
		described = append(described, string(m[1]))
	}
	families := newFamilies()
	for _, m := range families.all() {
		name := regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(m.desc.String())[1]
		if !strings.Contains(text, "# HELP "+name+" ") {
			t.Errorf("%s is not served", name)
		}
		i := slices.Index(described, name)
		if i < 0 {
			t.Errorf("%s is not in the table of docs/operations.md", name)
			continue
		}
		described = slices.Delete(described, i, i+1)
	}
	if len(described) > 0 {
		t.Errorf("docs/operations.md describes %v, which are not served", described)
	}
}

// On a TCP port too, profiles if asked for; and nobody is served who says that
// this is another host.
func TestMetricsOnTCP(t *testing.T) {
	socket := filepath.Join(shortDir(t), "s")
	d := spawn(t, socket, "--metrics", "localhost:0", "--pprof")
	d.says(t, "metrics are served")
	url := regexp.MustCompile(`address=(http://127\.0\.0\.1:\d+)/metrics`).FindStringSubmatch(d.stderr.String())
	if url == nil {
		t.Fatalf("no address:\n%s", d.stderr.String())
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: stopTime}
	for _, v := range []struct {
		method, path, host string
		status             int
	}{
		{"GET", "/metrics", "", 200},
		{"GET", "/metrics", "localhost:9090", 200},
		{"GET", "/metrics", "[::1]:9090", 200},
		{"GET", "/metrics", "evil.example", 403},
		{"GET", "/metrics", "10.0.0.1:9090", 403},
		{"POST", "/metrics", "", 405},
		{"GET", "/", "", 404},
		{"GET", "/debug/pprof/", "", 200},
		{"GET", "/debug/pprof/goroutine?debug=1", "", 200},
		{"GET", "/debug/pprof/profile?seconds=1", "", 200},
	} {
		req, err := http.NewRequest(v.method, url[1]+v.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = v.host
		r, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
		if r.StatusCode != v.status {
			t.Errorf("%s %s of %q: %d, want %d", v.method, v.path, v.host, r.StatusCode, v.status)
		}
	}
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}

// Nobody can keep others from the metrics for long, or make the daemon hold many
// connections, or its end up.
func TestMetricsConnections(t *testing.T) {
	path := filepath.Join(shortDir(t), "m")
	socket := path + "s"
	d := spawn(t, socket, "--metrics", path)
	_ = dial(t, socket).Close()
	before := descriptors(t, d)
	for range 3 * endpointConns {
		c, err := net.Dial("unix", path) // and says nothing
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	time.Sleep(100 * time.Millisecond) // for the daemon to take what it takes
	if n := descriptors(t, d) - before; n > endpointConns+4 {
		t.Errorf("the daemon has %d more descriptors", n)
	}
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}

func descriptors(t *testing.T, p *process) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// A metrics socket that somebody serves is left alone, one that nobody serves is
// replaced, and what is no socket stays.
func TestMetricsSocketTaken(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "m")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	d := spawn(t, filepath.Join(dir, "s"), "--metrics", path)
	d.wait(t, stopTime, exitFail)
	d.says(t, "metrics: claim socket "+path)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	d = spawn(t, filepath.Join(dir, "s"), "--metrics", path)
	d.says(t, "msg=ready")
	scrape(t, path)
	d.signal(t, syscall.SIGKILL)
	<-d.ended
	d = spawn(t, filepath.Join(dir, "s"), "--metrics", path)
	d.says(t, "msg=ready")
	scrape(t, path)
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
	writeFile(t, path, "precious")
	d = spawn(t, filepath.Join(dir, "s"), "--metrics", path)
	d.wait(t, stopTime, exitFail)
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

// Names that are no UTF-8 and drives that are not there are shown somehow.
func TestMetricsOfOddNames(t *testing.T) {
	s := server.Snapshot{Pools: []server.PoolSnapshot{{
		Info: api.PoolInfo{Name: "p\xff", Health: "degraded", State: "read-only", Drives: []api.DriveInfo{
			{UUID: "one", State: "missing"}, {UUID: "two", State: "missing"}, {Path: "/dev/\xfe", State: "online"},
		}},
		Drives: []server.DriveSnapshot{{}},
	}}}
	reg := newRegistry(func() server.Snapshot { return s }, func() daemonState { return daemonState{} })
	list, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if f.GetName() == "mpool_drive_state" && len(f.Metric) != 9 {
			t.Errorf("%d states of drives", len(f.Metric))
		}
	}
}
