package server

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/uhandle"
)

// A killed process's everything is given back, and told once.
//
// proves S33
func TestKilledHolder(t *testing.T) {
	r := newRig(t)
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
	if e.PID != int32(c.cmd.Process.Pid) || e.Aborted != 2 || e.References != 9 || e.Latency <= 0 || e.Latency > 10*time.Second ||
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
	r := newRig(t, func(o *Options) { o.noPeerPidfd = true })
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
	for end := time.Now().Add(20 * time.Second); len(r.srv.all()) > 0; time.Sleep(time.Millisecond) {
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

// What an allocation gives that is answered to nobody is not kept.
//
// proves S33
func TestAllocDuringDeath(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	pool := w.openPool()
	entered, hold := make(chan struct{}, 4), make(chan struct{})
	r.b.hook(func(_ context.Context, op string) error {
		if strings.HasSuffix(op, "alloc") {
			entered <- struct{}{}
			<-hold
			// The pool does not see that its caller is gone.
			return nil
		}
		return nil
	})
	r.b.deaf(true)
	for i, op := range []ioctl.Op{ioctl.OpMblockAlloc, ioctl.OpMlogAlloc} {
		w.send(ioctl.Header{Op: op, Tag: uint64(50 + i)}, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1}})
		<-entered
	}
	w.conn.Close()
	r.nextReaped(1)
	close(hold)
	r.eventually("both were made", func(p *fakePool) bool { return p.next == 3 })
	r.eventually("both are gone", func(p *fakePool) bool { return len(p.objects) == 0 })
}

// An object that another session found in the moment between its birth and its
// adoption is aborted all the same when its session ends.
//
// proves S33
func TestOrphanInUse(t *testing.T) {
	r := newRig(t)
	w, other := r.raw(), r.raw()
	pool, othersPool := w.openPool(), other.openPool()
	born, found := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	r.b.hook(func(_ context.Context, op string) error {
		// Of the finder, who looks whose it is; then of sweepers.
		if op == "object info" && !first.Swap(true) {
			close(found)
			<-born
		}
		return nil
	})
	// Made behind the server's back: nobody has adopted it yet.
	b := must[api.Mblock](t)(r.pool().AllocMblock(context.Background(), api.AllocOptions{Capacity: 1}))
	other.send(ioctl.Header{Op: ioctl.OpMblockFind, Tag: 70}, &ioctl.Find{Pool: othersPool, ID: b.ID()})
	<-found
	// Now its session gets it, and dies.
	s := r.sessionOf(t, pool)
	a, err := r.srv.pools.get("data")
	if err != nil {
		t.Fatal(err)
	}
	a.adopt(s, b.ID())
	if err := b.Put(); err != nil {
		t.Fatal(err)
	}
	w.conn.Close()
	if e := r.nextReaped(1); e.Aborted != 0 {
		t.Errorf("%+v", e)
	}
	r.checkOne(api.StateUncommitted) // in use by the finder
	close(born)
	_, err = other.answer(ioctl.OpMblockFind, 70)
	want(t, api.ENOENT, err)
	r.eventually("it is gone", func(p *fakePool) bool { return len(p.objects) == 0 })
}

// An object that its session was just trying to abort when the session ended is
// not forgotten if that fails: meanwhile it is not to be found.
//
// proves S33
func TestOrphanBeingAborted(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	b := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: w.openPool(), Options: api.AllocOptions{Capacity: 1}})
	entered, hold := make(chan struct{}), make(chan struct{})
	var began, aborting atomic.Bool
	r.b.hook(func(_ context.Context, op string) error {
		switch {
		case op == "object abort" && !began.Swap(true):
			aborting.Store(true)
			close(entered)
			<-hold
			aborting.Store(false)
			return api.Errorf(api.ESTATE, op, "a commit came between")
		case op == "mblock find" && aborting.Load():
			return api.Errorf(api.ENOENT, op, "being deleted")
		}
		return nil
	})
	w.send(ioctl.Header{Op: ioctl.OpObjectAbort, Tag: 99}, &ioctl.Target{Handle: b})
	<-entered
	w.conn.Close()
	r.nextReaped(1) // by then it was looked for
	close(hold)
	r.eventually("it is gone", func(p *fakePool) bool { return len(p.objects) == 0 })
}

// sessionOf returns the session that has a handle.
func (r *rig) sessionOf(t *testing.T, h ioctl.Handle) *session {
	t.Helper()
	for _, s := range r.srv.all() {
		if e, err := s.table.Use(uhandle.Handle(h), kindPool); err == nil {
			s.table.Done(e)
			return s
		}
	}
	t.Fatal("no session has the handle")
	return nil
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

// letOthersIn lets other users find the socket.
func (r *rig) letOthersIn() {
	r.t.Helper()
	for dir := filepath.Dir(r.socket); dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
}

// Who may open, read, change and administer a pool is decided by its owner,
// group and mode.
//
// proves S44
func TestAccess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	ctx := context.Background()
	r := newRig(t)
	r.letOthersIn()
	c := r.dial()
	for name, o := range map[string]api.CreateOptions{
		"closed":   {Mode: 0o660},
		"mine":     {Mode: 0o600, UID: 65534},
		"group":    {Mode: 0o060, GID: 4242},
		"readable": {Mode: 0o644},
	} {
		must[api.CreateResult](t)(c.CreatePool(ctx, name, []string{"/dev/" + name}, o))
	}
	p := r.open(c)
	b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1}))
	if err := b.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	k := r.child("stranger")
	for _, line := range []string{
		"open closed EPERM", "stat closed EPERM",
		"open mine ok", "alloc mine ok", "realloc mine ok", "spare mine EPERM", "roots mine ok",
		"open group ok", "alloc group ok", "realloc group EPERM", "spare group EPERM", "roots group ok",
		"open readable ok", "alloc readable EPERM", "realloc readable EPERM", "spare readable EPERM", "roots readable EPERM",
		"open data ok", "alloc data ok", "realloc data EPERM", "spare data EPERM", "roots data ok",
		"delete data EBUSY",
		"pools [data group mine readable]",
		"create EPERM", "activate EPERM", "deactivate EPERM", "destroy EPERM", "rename EPERM", "set EPERM",
	} {
		got := k.line()
		if line == "delete data EBUSY" {
			// Both holders are counted; it is told its own process only.
			if got != line+" false:1 true:1" && got != line+" true:1 false:1" {
				t.Errorf("it says %q", got)
			}
			continue
		}
		if got != line {
			t.Errorf("it says %q, want %q", got, line)
		}
	}
	if err := k.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// Every operation takes a deadline; when it passes the outcome is known, or it
// is said that it is not.
//
// proves S46
func TestDeadlines(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	p := r.open(c)
	ctx := context.Background()
	b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20}))
	// A pool that looks at the deadline.
	r.b.hook(func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return nil
	})
	for name, f := range map[string]func(ctx context.Context) error{
		"info":   func(ctx context.Context) error { _, err := p.Info(ctx); return err },
		"alloc":  func(ctx context.Context) error { _, err := p.AllocMblock(ctx, api.AllocOptions{}); return err },
		"write":  func(ctx context.Context) error { _, err := b.Write(ctx, []byte("x")); return err },
		"read":   func(ctx context.Context) error { _, err := b.ReadAtContext(ctx, make([]byte, 1), 0); return err },
		"commit": b.Commit,
	} {
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		began := time.Now()
		err := f(short)
		cancel()
		if !errors.Is(err, api.ETIMEDOUT) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s took %v", name, took)
		}
		cancelled, giveUp := context.WithCancelCause(ctx)
		stop := time.AfterFunc(10*time.Millisecond, func() { giveUp(errWhy) })
		err = f(cancelled)
		stop.Stop()
		if !errors.Is(err, api.ECANCELED) || !errors.Is(err, errWhy) {
			t.Errorf("%s, cancelled: %v", name, err)
		}
		giveUp(nil)
		if err := f(cancelled); err == nil {
			t.Errorf("%s, cancelled before: %v", name, err)
		}
	}
	r.b.hook(func(context.Context, string) error { return nil })
	if i := must[api.ObjectInfo](t)(b.Info(ctx)); i.State != api.StateUncommitted || i.Length != 0 {
		t.Errorf("what was not done is not: %+v", i)
	}
}

var errWhy = errors.New("because")

// When the daemon does not say what became of a request the client says so in
// time, and what it may yet give is given back.
//
// proves S46
func TestDeadlinesDeafPool(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	p := r.open(c)
	ctx := context.Background()
	b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20}))
	d := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1}))
	if err := d.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	// Reads and writes of one mblock that come over the ring are done in order.
	e := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20}))
	r.b.deaf(true)
	entered, hold := make(chan struct{}), make(chan struct{})
	r.b.hook(func(context.Context, string) error {
		entered <- struct{}{}
		<-hold
		return nil
	})
	cancelled, giveUp := context.WithCancel(ctx)
	calls := map[string]func(ctx context.Context) error{
		"info":   func(ctx context.Context) error { _, err := p.Info(ctx); return err },
		"alloc":  func(ctx context.Context) error { _, err := p.AllocMblock(ctx, api.AllocOptions{}); return err },
		"find":   func(ctx context.Context) error { _, err := p.Mblock(ctx, b.ID()); return err },
		"read":   func(ctx context.Context) error { _, err := e.ReadAtContext(ctx, make([]byte, 1<<20), 0); return err },
		"write":  func(ctx context.Context) error { _, err := b.Write(ctx, make([]byte, 1<<19)); return err },
		"delete": d.Delete,
	}
	var wg sync.WaitGroup
	for name, f := range calls {
		wg.Go(func() {
			code := api.ECANCELED
			if name == "write" || name == "delete" {
				code = api.EUNKNOWN
			}
			if err := f(cancelled); !errors.Is(err, code) || !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	for range calls {
		<-entered
	}
	giveUp()
	wg.Wait()
	// What follows a write of unknown fate might overtake it.
	_, err := b.Write(ctx, []byte("x"))
	want(t, api.EIO, err)
	want(t, api.EIO, b.Commit(ctx))
	r.b.hook(func(context.Context, string) error { return nil })
	close(hold)
	r.eventually("what nobody waits for is given back", func(p *fakePool) bool {
		o, late := p.objects[b.ID()], p.objects[mblockID(4)]
		return len(p.objects) == 3 && o != nil && o.refs == 1 && late != nil && late.refs == 0
	})
	// The slots and the memory are free again.
	r.b.deaf(false)
	for range 200 {
		if _, err := b.ReadAtContext(ctx, make([]byte, 1<<19), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Abort(ctx); err != nil {
		t.Fatal(err)
	}
}

// Many processes' worth of goroutines on many connections get their own answers.
func TestConcurrent(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	var wg sync.WaitGroup
	for n := range 4 {
		c := r.dial()
		p := r.open(c)
		for g := range 40 { // more than there are slots, all in all
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(n), uint64(g)))
				for range 8 {
					oneLife(ctx, t, rng, p)
				}
			})
		}
		for range 50 {
			wg.Go(func() {
				for range 20 {
					if _, err := c.Version(ctx); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	s := must[client.Stats](t)(r.dial().Stat(ctx, "data"))
	for _, o := range s.Ops {
		if o.Op == ioctl.OpMblockWrite && (o.Errors != 0 || o.Count < 4*40*8 || o.Bytes == 0) {
			t.Errorf("%+v", o)
		}
	}
}

// oneLife writes, reads back and deletes an mblock of some size.
func oneLife(ctx context.Context, t *testing.T, rng *rand.Rand, p api.Pool) {
	t.Helper()
	data := make([]byte, 1+rng.IntN(1+[]int{100, 50 << 10, 300 << 10}[rng.IntN(3)]))
	for i := 0; i < len(data); i += 1 + rng.IntN(2000) {
		data[i] = byte(rng.Uint32())
	}
	b, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(len(data))})
	if err != nil {
		t.Error(err)
		return
	}
	if _, err := b.Write(ctx, data); err != nil {
		t.Error(err)
	}
	if err := b.Commit(ctx); err != nil {
		t.Error(err)
	}
	got := make([]byte, len(data))
	if n, err := b.ReadAt(got, 0); n != len(data) || string(got) != string(data) {
		t.Errorf("%d bytes of %d, %v", n, len(data), err)
	}
	if err := b.Delete(ctx); err != nil {
		t.Error(err)
	}
}
