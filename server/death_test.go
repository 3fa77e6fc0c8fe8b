package server

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// tellsAll has the event of a session's end wait until all is given back, however
// long that takes.
func tellsAll(o *Options) { o.eventPatience = inVain }

// A killed process's everything is given back, and told once.
//
// proves S33
func TestKilledHolder(t *testing.T) {
	r := newRig(t, tellsAll)
	c := r.child("holder")
	c.expect("ready")
	p := r.pool()
	p.mu.Lock()
	if len(p.objects) != 5 || p.closers != 3 {
		t.Errorf("it holds %d objects and %d opens", len(p.objects), p.closers)
	}
	p.mu.Unlock()
	c.kill()
	e := r.nextReaped(1)
	if e.PID != int32(c.cmd.Process.Pid) || e.Aborted != 2 || e.References != 9 || e.Latency <= 0 ||
		e.Cause != ioctl.CauseSignal || e.Signal != 9 {
		t.Errorf("%+v", e)
	}
	r.checkCommitted(3)
	time.Sleep(20 * time.Millisecond) // for a second event, which must not come
	if list, _ := r.reaped(); len(list) != 1 {
		t.Errorf("%d events", len(list))
	}
}

// checkCommitted checks that nothing but so many committed objects is left.
func (r *rig) checkCommitted(n int) {
	r.t.Helper()
	p := r.pool()
	r.checkClean(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.objects) != n {
		r.t.Errorf("%d objects are left, want %d", len(p.objects), n)
	}
}

// Processes that are killed at any moment leave nothing behind.
//
// proves S33
func TestKilledAtAnyMoment(t *testing.T) {
	r := newRig(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	bystander := r.open(r.dial())
	for i := range 12 {
		c := r.child("busy")
		c.expect("ready")
		time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond)
		c.kill()
		e := r.nextReaped(i + 1)
		if e.PID != int32(c.cmd.Process.Pid) || e.Cause != ioctl.CauseSignal || e.Signal != 9 {
			t.Fatalf("%+v", e)
		}
		if _, err := bystander.Info(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	p := r.pool()
	r.eventually("nothing is held", func(*fakePool) bool {
		for _, o := range p.objects {
			if o.refs != 0 || o.state == api.StateUncommitted {
				return false
			}
		}
		return p.closers == 0
	})
}

// A session ends with its process although a child of it has the socket, and
// the child cannot speak in its name; a process that is merely stopped keeps
// its session.
//
// proves S32
func TestInheritedSocket(t *testing.T) {
	for name, fallback := range map[string]bool{"peerpidfd": false, "challenge": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(o *Options) { o.noPeerPidfd = fallback })
			c := r.child("parent")
			c.expect("stranger got EPERM")
			_, pid, ok := strings.Cut(c.line(), "pid ")
			grandchild, err := strconv.Atoi(pid)
			if !ok || err != nil {
				t.Fatalf("no pid: %v", err)
			}
			if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond) // for an end that must not come
			if n := len(r.srv.all()); n != 1 {
				t.Fatalf("a stopped process has %d sessions", n)
			}
			if err := c.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			e := r.nextReaped(1)
			if e.DetectedBy != ioctl.SourcePidfd || e.Cause != ioctl.CauseSignal || e.PID != int32(c.cmd.Process.Pid) {
				t.Errorf("%+v", e)
			}
			if err := unix.Kill(grandchild, 0); err != nil {
				t.Errorf("the child is not there any more: %v", err)
			}
			if err := c.in.Close(); err != nil { // ends it
				t.Error(err)
			}
			if err := c.cmd.Wait(); err == nil {
				t.Error("the parent was not killed")
			}
		})
	}
}

// A session by challenge serves as any other.
//
// proves S32
func TestChallenge(t *testing.T) {
	r := newRig(t, withoutPeerPidfd, tellsAll)
	c := r.child("holder")
	c.expect("ready")
	c.kill()
	if e := r.nextReaped(1); e.Aborted != 2 {
		t.Errorf("%+v", e)
	}
	w := r.raw()
	w.ok(ioctl.OpVersion, &ioctl.Empty{})
}

// A process that was dead when it was accepted has no session for long.
//
// proves S32
func TestDeadAtAccept(t *testing.T) {
	r := newRig(t)
	for range 5 {
		c := r.child("holder")
		c.kill() // most likely before it has connected, or just then
	}
	for end := time.Now().Add(inVain); len(r.srv.all()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("sessions are left")
		}
	}
	r.eventually("nothing is held", func(p *fakePool) bool { return len(p.objects) <= 5 && p.closers == 0 })
}

// A commit that was sent runs to its end although its client is gone: the
// object stays if it succeeds, and goes if it does not.
//
// proves S33
func TestCommitOutlivesClient(t *testing.T) {
	for name, fail := range map[string]bool{"succeeds": false, "fails": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w := r.raw()
			b := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: w.openPool(), Options: api.AllocOptions{Capacity: 1}})
			entered, hold := make(chan struct{}), make(chan struct{})
			r.b.hook(func(ctx context.Context, op string) error {
				if op != "object commit record" {
					return nil
				}
				close(entered)
				<-hold
				if ctx.Err() != nil {
					t.Error("the commit was cancelled")
				}
				if fail {
					return api.Errorf(api.EIO, op, "no luck")
				}
				return nil
			})
			w.send(ioctl.Header{Op: ioctl.OpObjectCommit, Tag: 99}, &ioctl.Target{Handle: b})
			<-entered
			w.conn.Close()
			if e := r.nextReaped(1); e.Aborted != 0 {
				t.Errorf("%+v", e)
			}
			r.checkOne(api.StateUncommitted)
			close(hold)
			if fail {
				r.eventually("it is gone", func(p *fakePool) bool { return len(p.objects) == 0 })
				return
			}
			r.eventually("it stays, held by nobody", func(p *fakePool) bool {
				o := p.objects[mblockID(1)]
				return o != nil && o.state == api.StateCommitted && o.refs == 0
			})
		})
	}
}

func (r *rig) checkOne(st api.State) {
	r.t.Helper()
	p := r.pool()
	p.mu.Lock()
	defer p.mu.Unlock()
	if o := p.objects[mblockID(1)]; len(p.objects) != 1 || o == nil || o.state != st {
		r.t.Errorf("%d objects, %+v", len(p.objects), o)
	}
}

// Nothing stands in the way of a session's end: not a log whose close waits for
// its drive.
//
// proves S33
func TestSlowCloseHoldsUpNothingElse(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	pool := w.openPool()
	alloc := &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1}}
	l := w.opened(ioctl.OpMlogAlloc, alloc)
	w.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: l})
	w.opened(ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: l})
	w.opened(ioctl.OpMblockAlloc, alloc)
	entered, hold := make(chan struct{}), make(chan struct{})
	r.b.hook(func(_ context.Context, op string) error {
		if op == "appender close" {
			close(entered)
			<-hold
		}
		return nil
	})
	w.conn.Close()
	<-entered
	r.eventually("everything else is given back", func(p *fakePool) bool {
		return len(p.objects) == 1 && p.objects[mblockID(2)] == nil
	})
	close(hold)
	r.nextReaped(1)
}
