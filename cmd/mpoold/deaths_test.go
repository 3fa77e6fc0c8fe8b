package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/mpool-go/mpool/client"
)

// playHolder has a session until it is killed.
func playHolder(socket string) int {
	c, err := client.Dial(context.Background(), client.Options{Socket: socket, Hello: stopTime, Reconnect: -1})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer c.Close()
	fmt.Fprintln(os.Stderr, "holding")
	_, _ = os.Stdin.Read(make([]byte, 1)) // there is nothing to read; it is killed
	return 0
}

// deathsConfig writes a configuration that says how deaths are noticed.
func deathsConfig(t *testing.T, dir, ebpf string) string {
	t.Helper()
	return writeFile(t, filepath.Join(dir, "conf-"+ebpf), "[deaths]\nebpf = '"+ebpf+"'\n")
}

// reapedClients counts the sessions that have ended with their process, also those
// of which a busy kernel did not say in time how it ended.
func reapedClients(v map[string]float64) (n float64) {
	for name, count := range v {
		if strings.HasPrefix(name, "mpool_sessions_reaped_total{") && !strings.Contains(name, `cause="closed"`) {
			n += count
		}
	}
	return n
}

// With the exit tracepoint required, the daemon notices deaths by it, and the
// log and the metrics say so; with it off it does not try.
//
// proves S34
func TestDeathsByTheTracepoint(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to load a program into the kernel")
	}
	for ebpf, up := range map[string]float64{"require": 1, "off": 0} {
		dir := shortDir(t)
		socket, metrics := filepath.Join(dir, "s"), filepath.Join(dir, "m")
		d := spawn(t, socket, "--config", deathsConfig(t, dir, ebpf), "--metrics", metrics)
		d.says(t, map[string]string{
			"require": `msg="clients' deaths are noticed" by="bpf, pidfd, socket" before_memory_is_freed=`,
			"off":     "msg=\"clients' deaths are noticed\" by=\"pidfd, socket\"\n",
		}[ebpf])
		const by = `mpool_sessions_reaped_total{cause="signal",detected_by=`
		var v map[string]float64
		// Now and then another is first.
		for killed := 1.0; killed <= 20 && v[by+`"bpf"}`] == 0; killed++ {
			h := command(roleHolder, socket)
			stdin, err := h.cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			h.start(t).says(t, "holding")
			if n := values(t, scrape(t, metrics))["mpool_exit_watch_processes"]; n != up {
				t.Errorf("%s: %v of 1 clients are watched", ebpf, n)
			}
			h.signal(t, syscall.SIGKILL)
			for end := time.Now().Add(stopTime); ; {
				v = values(t, scrape(t, metrics))
				if reapedClients(v) >= killed && v["mpool_exit_watch_processes"] == 0 {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("%s: %v clients were killed: %v", ebpf, killed, v)
				}
			}
		}
		if n := v[by+`"bpf"}`]; n != up || v["mpool_exit_watch_up"] != up {
			t.Errorf("%s: %v noticed by the tracepoint, up is %v", ebpf, n, v["mpool_exit_watch_up"])
		}
		if v["mpool_exit_watch_lost_total"] != 0 || v["mpool_exit_watch_refused_total"] != 0 {
			t.Errorf("%s: %v", ebpf, v)
		}
		d.signal(t, syscall.SIGTERM)
		d.wait(t, stopTime, exitClean)
	}
}

// When the program in the kernel does not know the clients any more, while the
// daemon runs, no death is missed; the daemon says once that it is without, and
// the metrics do.
//
// proves S34
func TestTheTracepointIsTakenAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to load a program into the kernel")
	}
	dir := shortDir(t)
	socket, metrics := filepath.Join(dir, "s"), filepath.Join(dir, "m")
	d := spawn(t, socket, "--config", deathsConfig(t, dir, "require"), "--metrics", metrics)
	d.says(t, "before_memory_is_freed=")
	const clients = 5
	var holders []*process
	for range clients {
		h := command(roleHolder, socket)
		stdin, err := h.cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close()
		holders = append(holders, h.start(t))
		h.says(t, "holding")
	}
	if v := values(t, scrape(t, metrics)); v["mpool_exit_watch_processes"] != clients || v["mpool_exit_watch_up"] != 1 {
		t.Fatalf("%v are watched, up is %v", v["mpool_exit_watch_processes"], v["mpool_exit_watch_up"])
	}
	emptyMap(t, d.cmd.Process.Pid, clients)
	time.Sleep(1100 * time.Millisecond) // a watch that is younger does not count: its process may have been dying before
	for _, h := range holders {
		h.signal(t, syscall.SIGKILL)
	}
	for end := time.Now().Add(stopTime); ; time.Sleep(time.Millisecond) {
		v := values(t, scrape(t, metrics))
		if reapedClients(v) == clients && v["mpool_exit_watch_up"] == 0 && v["mpool_exit_watch_processes"] == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d clients were killed: %v", clients, v)
		}
	}
	const line = "the exit tracepoint misses clients' deaths"
	d.says(t, line)
	_ = dial(t, socket) // it goes on
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
	if n := strings.Count(d.stderr.String(), line); n != 1 {
		t.Errorf("said %d times:\n%s", n, d.stderr.String())
	}
}

// emptyMap takes all processes out of the kernel's map of those that a daemon has
// watched.
func emptyMap(t *testing.T, pid, want int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // closed meanwhile
		}
		var kind, id uint32
		for line := range strings.Lines(string(b)) {
			_, _ = fmt.Sscanf(line, "map_type:\t%d", &kind)
			_, _ = fmt.Sscanf(line, "map_id:\t%d", &id)
		}
		if ebpf.MapType(kind) != ebpf.Hash {
			continue
		}
		m, err := ebpf.NewMapFromID(ebpf.MapID(id))
		if err != nil {
			t.Fatal(err)
		}
		var process uint64
		for ; m.NextKey(nil, &process) == nil; n++ {
			if err := m.Delete(process); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n != want {
		t.Fatalf("%d processes were in the map, want %d", n, want)
	}
}

// A daemon that may not use the tracepoint says so in one line and goes on
// without, unless it is required.
func TestDeathsWithoutTheTracepoint(t *testing.T) {
	home := homeOf(t)
	socket := filepath.Join(home, "s")
	d := asNobody(t, roleDaemon, "--socket", socket, "--config", deathsConfig(t, home, "auto")).start(t)
	d.says(t, "msg=ready")
	const why = "it takes CAP_BPF and CAP_PERFMON"
	if n := strings.Count(d.stderr.String(), why); n != 1 || !strings.Contains(d.stderr.String(), "not_by_bpf=") {
		t.Errorf("says %d times why:\n%s", n, d.stderr.String())
	}
	_ = dial(t, socket)
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
	d = asNobody(t, roleDaemon, "--socket", socket, "--config", deathsConfig(t, home, "require")).start(t)
	d.wait(t, stopTime, exitFail)
	d.says(t, `deaths.ebpf is \"require\": watch exits: `+why)
}

// What deaths.ebpf may be.
func TestDeathsConfiguration(t *testing.T) {
	_, err := load(deathsConfig(t, t.TempDir(), "never"))
	if err == nil || !strings.Contains(err.Error(), `:2: deaths.ebpf is "never": want auto, off or require`) {
		t.Errorf("%v", err)
	}
}
