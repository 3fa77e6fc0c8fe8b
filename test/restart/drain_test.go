package restart

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/test/daemon"
	"github.com/mpool-go/mpool/test/faultfs"
	"github.com/mpool-go/mpool/test/loopdev"
)

var drainEach = flag.Bool("restart.each", false, "let the daemon end also under one kind of client at a time")

// held starts a holder, which is stopped, if asked for, when it holds what it is to.
func held(t *testing.T, d *served, stopped bool, what ...string) *process {
	t.Helper()
	c := child(t, role{Kind: kindHolder, Socket: d.socket, Journal: filepath.Join(t.TempDir(), "held"), Hold: what})
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // whatever it does
		<-c.ended
	})
	daemon.Eventually(t, fmt.Sprintf("a client that holds %v", what), func() bool {
		select {
		case err := <-c.ended:
			c.ended <- err
			t.Fatalf("it ended with %v\n%s", err, &c.out)
		default:
		}
		_, err := os.Stat(c.journal)
		return err == nil
	})
	if stopped {
		if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// whole checks that the pool is as after a clean end, with nothing of clients left.
func whole(t *testing.T, d *served) {
	t.Helper()
	if said := d.said(); strings.Contains(said, "level=ERROR") || strings.Contains(said, "panic") {
		t.Errorf("not a clean end:\n%s", said)
	}
	d.start()
	c := d.dial()
	info, err := d.open(c).Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Space.Uncommitted != 0 || info.Health != "optimal" {
		t.Errorf("the pool is %+v", info)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	d.end()
}

// proves S33 S36: SIGTERM ends the daemon in its time, cleanly, whatever its clients
// do: those that go on, and those that were stopped in the middle of it.
func TestDrain(t *testing.T) {
	d := newServed(t)
	all := slices.Sorted(maps.Keys(holds))
	cases := map[string][]string{"all": all}
	if *drainEach {
		for _, w := range all {
			cases[w] = []string{w}
		}
	}
	for name, what := range cases {
		t.Run(name, func(t *testing.T) {
			d.t = t
			if d.cmd.ProcessState != nil {
				d.start()
			}
			for _, w := range what {
				held(t, d, false, w) // a process each: what attackers may, others may, too
				held(t, d, true, w)
			}
			began := time.Now()
			d.end()
			t.Logf("it took %v", time.Since(began))
			whole(t, d)
		})
	}
	d.t = t
}

// proves S42: with a drive that does not answer, under clients of all kinds, SIGTERM
// ends the daemon in time as well, and the next one finds what was there.
func TestDrainOfStalledDrive(t *testing.T) {
	loopdev.RequireRoot(t)
	for name, code := range map[string]bdev.OpCode{"all": 0, "flushes": bdev.OpFlush} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of the time they wait
			drive := faultfs.New(t, driveBytes, faultfs.Options{})
			d := newServedOn(t, loopdev.New(t, 0, loopdev.Options{Backing: drive.Path}).Path)
			held(t, d, false, "open logs", "uncommitted", "event followers", "half a handshake")
			held(t, d, false, "busy rings")
			release := drive.Stall(faultfs.Stall{Code: code})
			defer release()
			held(t, d, false, "unread answers", "attackers")
			began := time.Now()
			d.terminate()
			// A thread that the kernel does not let go keeps what is left of the
			// process, which has exited by then.
			daemon.Eventually(t, "it has exited", func() bool { return d.exited() })
			t.Logf("it took %v", time.Since(began))
			release()
			if err := d.cmd.Wait(); err != nil {
				t.Errorf("mpoold: %v\n%s", err, d.said())
			}
			d.start()
			c := d.dial()
			info, err := d.open(c).Info(t.Context())
			if err != nil || info.Space.Uncommitted != 0 || info.Health != "optimal" {
				t.Errorf("the pool is %+v, %v", info, err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			d.end()
		})
	}
}
