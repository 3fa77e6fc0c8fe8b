// Package restart ends the real daemon with SIGKILL under many client
// processes and starts it again, while they go on: every call must return what
// it may, every client must find the new daemon by itself, and in the end what
// was acknowledged must be there.
package restart

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/test/daemon"
)

var (
	kills   = flag.Int("restart.kills", 10, "how often the daemon is killed")
	clients = flag.Int("restart.clients", 50, "client processes")
	seed    = flag.Uint64("restart.seed", 0, "seed of the workload and of the moments; 0: from the clock")
)

const (
	driveBytes = 384 << 20
	logBytes   = 1 << 20
	poolName   = "restart"
	// patience bounds what must not take long; it decides only how long a test
	// that fails takes.
	patience = 3 * time.Minute
)

func TestMain(m *testing.M) {
	flag.Parse()
	if b := os.Getenv(roleVariable); b != "" {
		play(b)
		return
	}
	os.Exit(daemon.Main(m, false, &mpoold))
}

var mpoold string // the daemon's binary, built by TestMain

// served is a daemon, ended and started again on one socket.
type served struct {
	t           *testing.T
	bin, socket string
	device      string   // "": no pool is activated
	kept        *os.File // the socket, if it outlives daemons
	config      string   // path; "": none
	cmd         *exec.Cmd
	log         *os.File
}

func (d *served) start() {
	d.t.Helper()
	args := []string{"--log-level", "warn"}
	if d.kept == nil {
		args = append(args, "--socket", d.socket)
	}
	if d.config != "" {
		args = append(args, "--config", d.config)
	}
	if d.device != "" {
		args = append(args, "--activate", poolName+"@"+d.device)
	}
	d.cmd = exec.Command(d.bin, args...)
	if d.kept != nil {
		// LISTEN_PID names the process that it is for, which only that one knows.
		d.cmd = exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, d.bin}, args...)...)
		d.cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=mpoold")
		d.cmd.ExtraFiles = []*os.File{d.kept}
	}
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) { // polls; nothing depends on its length
		c, err := client.Dial(d.t.Context(), client.Options{Socket: d.socket})
		if err == nil {
			_ = c.Close() // only a probe
			return
		}
		if time.Now().After(end) {
			d.t.Fatalf("mpoold does not become ready: %v\n%s", err, d.said())
		}
	}
}

func (d *served) kill() {
	_ = d.cmd.Process.Kill() // it may be dead already
	_ = d.cmd.Wait()         // "signal: killed" is what is wanted
}

func (d *served) said() string {
	b, err := os.ReadFile(d.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-10_000):])
}

// newServed makes a daemon with a pool on a device of its own.
func newServed(t *testing.T) *served {
	t.Helper()
	return newServedOn(t, daemon.Drive(t, driveBytes))
}

// newServedOn makes a daemon with a pool on a device.
func newServedOn(t *testing.T, device string) *served {
	t.Helper()
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	d := &served{t: t, bin: mpoold, socket: filepath.Join(dir, "s"), log: log}
	t.Cleanup(func() {
		d.kill()
		log.Close()
	})
	d.start()
	c := d.dial()
	if _, err := c.CreatePool(t.Context(), poolName, []string{device}, api.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	d.device = device
	return d
}

func (d *served) dial() *client.Conn {
	d.t.Helper()
	c, err := client.Dial(d.t.Context(), client.Options{Socket: d.socket})
	if err != nil {
		d.t.Fatalf("%v\n%s", err, d.said())
	}
	d.t.Cleanup(func() { _ = c.Close() }) // its daemon may be gone
	return c
}

func (d *served) open(c *client.Conn) api.Pool {
	d.t.Helper()
	p, err := c.OpenPool(d.t.Context(), poolName)
	if err != nil {
		d.t.Fatal(err)
	}
	return p
}

// process is a client process.
type process struct {
	n       int
	cmd     *exec.Cmd
	stdin   io.Closer // closed: stop
	journal string
	out     bytes.Buffer
	ended   chan error
}

// child starts this test's program in another role.
func child(t *testing.T, r role) *process {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	c := &process{n: r.N, journal: r.Journal, cmd: exec.Command("/proc/self/exe"), ended: make(chan error, 1)}
	c.cmd.Env = append(os.Environ(), roleVariable+"="+string(b), "GORACE=halt_on_error=1", "GOMAXPROCS=2")
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.ended <- c.cmd.Wait() }()
	return c
}

// wait waits for a process that was told to stop.
func (c *process) wait(t *testing.T) {
	t.Helper()
	select {
	case err := <-c.ended:
		if err != nil {
			t.Errorf("client %d: %v\n%s", c.n, err, &c.out)
		}
		return
	case <-time.After(patience):
	}
	_ = c.cmd.Process.Signal(syscall.SIGQUIT) // it says where it hangs
	<-c.ended
	t.Errorf("client %d hangs:\n%s", c.n, &c.out)
}

// proves S36: through any number of the daemon's deaths every call of every
// client returns, with an answer or with an error that says what is known; all
// clients find the next daemon by themselves; what was acknowledged is there,
// what was deleted does not come back, and no byte of space is lost.
func TestRestart(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test ./test/restart -run TestRestart -restart.seed=%d -restart.kills=%d -restart.clients=%d",
		s, s, *kills, *clients)
	rng := rand.New(rand.NewPCG(s, 1))
	d := newServed(t)
	logs := makeLogs(t, d, *clients)
	d.kill()
	d.start()
	dir := t.TempDir()
	var all []*process
	for n := range *clients {
		all = append(all, child(t, role{
			N: n, Socket: d.socket, Journal: filepath.Join(dir, fmt.Sprint(n)), Log: logs[n], Seed: rng.Uint64(),
		}))
	}
	everybody(t, d, all)
	for range *kills {
		time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond) // the moment of the kill; any will do
		d.kill()
		time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
		d.start()
	}
	everybody(t, d, all)
	for _, c := range all {
		c.stdin.Close()
	}
	for _, c := range all {
		c.wait(t)
	}
	if t.Failed() {
		t.Logf("the daemon says:\n%s", d.said())
		return
	}
	verify(t, d, all)
}

// makeLogs makes a log for each client.
func makeLogs(t *testing.T, d *served, n int) (ids []layout.ObjectID) {
	t.Helper()
	ctx := t.Context()
	c := d.dial()
	p := d.open(c)
	for range n {
		l, err := p.AllocMlog(ctx, api.AllocOptions{Capacity: logBytes})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, l.ID())
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return ids
}

// everybody waits until every client has a session with the daemon.
func everybody(t *testing.T, d *served, all []*process) {
	t.Helper()
	c := d.dial()
	defer c.Close()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // polls; nothing depends on its length
		list, err := c.Clients(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		var missing []int
		for _, p := range all {
			if !slices.ContainsFunc(list, func(i client.ClientInfo) bool { return int(i.PID) == p.cmd.Process.Pid }) {
				missing = append(missing, p.n)
			}
		}
		if len(missing) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("clients %v do not come back; the first says:\n%s", missing, &all[missing[0]].out)
		}
	}
}

// verify compares the pool with what the clients were told.
func verify(t *testing.T, d *served, all []*process) {
	t.Helper()
	c := d.dial()
	p := d.open(c)
	v := newVerdict()
	for _, client := range all {
		v.read(t, client.journal)
	}
	v.compare(t, p)
	v.space(t, p)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	d.kill()
	report, err := check.Run(context.Background(), []string{d.device}, check.Options{Data: true})
	if err != nil {
		t.Fatal(err)
	}
	if !report.OK {
		t.Errorf("the checker finds %+v", report.Problems)
	}
	t.Logf("%d kills under %d clients: %d calls, the longest %v; errors %v; %d mblocks, %d records at the end",
		*kills, *clients, v.calls, v.longest, v.errors, len(v.live), v.records)
	if *kills > 0 && len(v.errors) == 0 {
		t.Error("no call was in flight at any kill")
	}
}
