package restart

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
)

var upgrades = flag.Int("restart.upgrades", 3, "how often the daemon is replaced under its clients")

// stopTime bounds the wait for the daemon's end. It decides only how long a test
// that fails takes: what a daemon that is held up takes is measured where its time
// is short.
const stopTime = 3 * time.Minute

// keptSocket makes a listening socket that outlives daemons, as systemd does.
func keptSocket(t *testing.T, path string) *os.File {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { _ = f.Close() })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1), unix.Listen(fd, 4096)); err != nil {
		t.Fatal(err)
	}
	return f
}

// dialTally is what a dialer has seen.
type dialTally struct {
	Dials   int64
	Longest time.Duration
	Errors  []string
}

// dialer connects, asks and leaves, several at a time, until its standard input
// ends. It does not try again: each failure is one that a program sees.
func dialer(r *role) {
	const callers = 4
	var stop atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is what is waited for
		stop.Store(true)
	}()
	var mu sync.Mutex
	var tally dialTally
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for !stop.Load() {
				began := time.Now()
				err := dialOnce(r.Socket)
				mu.Lock()
				tally.Dials++
				tally.Longest = max(tally.Longest, time.Since(began))
				if err != nil {
					tally.Errors = append(tally.Errors, err.Error())
				}
				mu.Unlock()
				time.Sleep(3 * time.Millisecond) // below what a process may
			}
		})
	}
	wg.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(&tally); err != nil {
		panic(err)
	}
}

func dialOnce(socket string) error {
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Options{Socket: socket, Hello: patience})
	if err != nil {
		return err
	}
	_, err = c.Version(ctx)
	return errors.Join(err, c.Close())
}

// terminate sends SIGTERM.
func (d *served) terminate() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
}

// exited says whether the daemon has exited, whether or not the kernel still has
// one of its threads. Nobody has waited for it.
func (d *served) exited() bool {
	d.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	state := b[bytes.LastIndexByte(b, ')')+2]
	return state == 'Z' || state == 'X'
}

// end ends the daemon with SIGTERM: it must exit with 0, in time.
func (d *served) end() {
	d.t.Helper()
	d.terminate()
	late := time.AfterFunc(stopTime, func() {
		d.t.Errorf("it does not end within %v of SIGTERM", stopTime)
		_ = d.cmd.Process.Signal(syscall.SIGQUIT) // it says where it hangs
	})
	err := d.cmd.Wait()
	late.Stop()
	if err != nil {
		d.t.Fatalf("mpoold: %v\n%s", err, d.said())
	}
}

// proves S36: a daemon that is replaced on a socket that is kept turns nobody away:
// not one of those who connect meanwhile, from processes of their own, sees an
// error. Clients at work come through it as through a crash, and what they were
// told is there.
func TestUpgrade(t *testing.T) {
	const workers, dialers = 8, 6
	d := newServed(t)
	logs := makeLogs(t, d, workers)
	d.end()
	d.socket = filepath.Join(t.TempDir(), "kept")
	d.kept = keptSocket(t, d.socket)
	d.start()
	dir := t.TempDir()
	var all, callers []*process
	for n := range workers {
		all = append(all, child(t, role{
			N: n, Socket: d.socket, Journal: filepath.Join(dir, fmt.Sprint(n)), Log: logs[n], Seed: uint64(n),
		}))
	}
	for n := range dialers {
		callers = append(callers, child(t, role{Kind: kindDialer, N: n, Socket: d.socket}))
	}
	everybody(t, d, all)
	for range *upgrades {
		time.Sleep(100 * time.Millisecond) // any moment will do
		d.end()
		d.start()
	}
	everybody(t, d, all)
	for _, c := range append(callers, all...) {
		c.stdin.Close()
	}
	var sum dialTally
	for _, c := range callers {
		c.wait(t)
		var v dialTally
		if err := json.Unmarshal(c.out.Bytes(), &v); err != nil {
			t.Fatalf("%v: %s", err, &c.out)
		}
		sum.Dials += v.Dials
		sum.Longest = max(sum.Longest, v.Longest)
		sum.Errors = append(sum.Errors, v.Errors...)
	}
	for _, c := range all {
		c.wait(t)
	}
	t.Logf("%d upgrades, %d connections, the longest took %v", *upgrades, sum.Dials, sum.Longest)
	if len(sum.Errors) > 0 {
		t.Errorf("%d connections failed: %q", len(sum.Errors), sum.Errors[:min(5, len(sum.Errors))])
	}
	if t.Failed() {
		t.Logf("the daemon says:\n%s", d.said())
		return
	}
	c := d.dial()
	v := newVerdict()
	for _, w := range all {
		v.read(t, w.journal)
	}
	v.compare(t, d.open(c))
	v.space(t, d.open(c))
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	d.end()
}

// A child that waits on the kept socket of a daemon that never comes gets an answer
// that says so.
//
// proves S46
func TestKeptSocketWithoutDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	keptSocket(t, path)
	_, err := client.Dial(t.Context(), client.Options{Socket: path, Hello: 50 * time.Millisecond})
	if !errors.Is(err, client.ErrSilent) || api.CodeOf(err) == api.EPROTO {
		t.Error(err)
	}
}
