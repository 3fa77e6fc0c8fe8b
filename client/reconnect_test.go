package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// Without a daemon a call waits as long as it may, or its context, and says
// that nothing was done.
//
// proves S36 S46
func TestNobodyToReconnectTo(t *testing.T) {
	const bound = 80 * time.Millisecond
	for name, c := range map[string]struct {
		reconnect time.Duration
		ctx       func(context.Context) (context.Context, context.CancelFunc)
		want      api.Code
		least     time.Duration
	}{
		"its patience": {bound, func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} }, api.ECONNRESET, bound},
		"its deadline": {0, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, bound)
		}, api.ETIMEDOUT, bound},
		"cancelled": {0, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(bound, cancel)
			return ctx, cancel
		}, api.ECANCELED, bound},
		"over before": {0, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}, api.ECANCELED, 0},
		"never": {-1, func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} }, api.ECONNRESET, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			conn := f.connect(Options{Reconnect: c.reconnect})
			p := must(conn.OpenPool(t.Context(), "data"))
			f.stop()
			conn.broken(conn.current.Load())
			for what, call := range map[string]func(ctx context.Context) error{
				"asks":         func(ctx context.Context) error { return second(conn.Version(ctx)) },
				"changes":      func(ctx context.Context) error { return conn.DestroyPool(ctx, "data") },
				"on its pool":  func(ctx context.Context) error { return p.SetRoots(ctx, []api.Root{{Name: "r"}}) },
				"lists a pool": func(ctx context.Context) error { return drain(p.Objects(ctx, api.Filter{})) },
			} {
				began := time.Now() // before the context's time begins to run
				ctx, cancel := c.ctx(t.Context())
				err := call(ctx)
				took := time.Since(began)
				cancel()
				if api.CodeOf(err) != c.want || took < c.least || took >= defaultReconnect {
					t.Errorf("%s: %v after %v, want %v after %v", what, err, took, c.want, c.least)
				}
				if c.reconnect > 0 && !errors.Is(err, ErrNoDaemon) {
					t.Errorf("%s: does not say that there is no daemon: %v", what, err)
				}
			}
		})
	}
}

// A call in flight whose context ends while the library looks for another
// daemon says whether it may have been done.
//
// proves S46
func TestLostAndOutOfTime(t *testing.T) {
	s := newScene(t)
	ctx := newFuse(t)
	var wg sync.WaitGroup
	var ended atomic.Int32
	s.f.mu.Lock()
	s.f.fault = func(op ioctl.Op) (boundary, bool) {
		if op == ioctl.OpObjectCommit || op == ioctl.OpMblockRead {
			s.f.listener.Close()
			return afterDone, true
		}
		return never, false
	}
	s.f.mu.Unlock()
	wg.Go(func() {
		defer ended.Add(1)
		if err := s.fresh.Commit(ctx); !errors.Is(err, api.EUNKNOWN) && !errors.Is(err, api.EBADF) {
			t.Errorf("commit: %v", err)
		}
	})
	wg.Go(func() {
		defer ended.Add(1)
		err := s.read(ctx, 10)
		if errors.Is(err, api.EUNKNOWN) || !errors.Is(err, api.ETIMEDOUT) && !errors.Is(err, api.EBADF) {
			t.Errorf("read: %v", err)
		}
	})
	eventually(t, "each has ended or waits for another daemon", func() bool {
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		n := int(ended.Load())
		if s.c.try != nil {
			n += s.c.try.waiters
		}
		return n == 2
	})
	close(ctx.up)
	wg.Wait()
}

// Many callers share one connection attempt, and tries are not made faster than
// the back-off allows.
//
// proves S36
func TestNoStampede(t *testing.T) {
	f := newFake(t)
	c := f.connect(Options{})
	f.stop()
	c.broken(c.current.Load())
	const callers = 200
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			if _, err := c.Version(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	for {
		c.mu.Lock()
		n := 0
		if c.try != nil {
			n = c.try.waiters
		}
		c.mu.Unlock()
		if n == callers {
			break
		}
		time.Sleep(time.Millisecond)
	}
	f.start()
	wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.accepted != 2 {
		t.Errorf("%d connections, want the first one and one more", f.accepted)
	}
}

// A daemon that says hello and goes is not asked without a pause.
func TestBackOff(t *testing.T) {
	f := newFake(t)
	c := f.connect(Options{})
	const tries = 5
	hellos := 0
	f.mu.Lock()
	f.fault = func(op ioctl.Op) (boundary, bool) {
		if op == ioctl.OpHello {
			hellos++
		}
		if op != ioctl.OpHello || hellos == tries {
			return never, false
		}
		return afterAnswer, true
	}
	f.breakAll(true)
	f.mu.Unlock()
	c.broken(c.current.Load())
	began := time.Now()
	for {
		_, err := c.Version(t.Context())
		if err == nil {
			break
		}
		if !errors.Is(err, api.ECONNRESET) {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	f.mu.Lock()
	defer f.mu.Unlock()
	// 10, 20, 40 … ms, each of them halved by chance.
	if least := (5 + 10 + 20 + 40 + 80) * time.Millisecond; f.accepted != 1+tries || took < least {
		t.Errorf("%d tries in %v, want %d in %v or more", f.accepted-1, took, tries, least)
	}
}

// A request that kills every daemon it meets is not made for ever.
func TestDeadlyRequest(t *testing.T) {
	f := newFake(t)
	c := f.connect(Options{})
	f.mu.Lock()
	asked := 0
	f.fault = func(op ioctl.Op) (boundary, bool) {
		if op != ioctl.OpStat {
			return never, false
		}
		asked++
		return afterAsked, true
	}
	f.mu.Unlock()
	if _, err := c.Stat(t.Context(), ""); !errors.Is(err, api.ECONNRESET) {
		t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if asked != repeats+1 {
		t.Errorf("asked %d times", asked)
	}
}

// Closed while calls wait for a connection, or while one is being made, the
// calls end and nothing is left.
func TestCloseWhileReconnecting(t *testing.T) {
	for _, daemon := range []bool{false, true} {
		f := newFake(t)
		c := f.connect(Options{})
		f.stop()
		c.broken(c.current.Load())
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				_, err := c.Version(t.Context())
				if err != nil && (!errors.Is(err, api.ECONNRESET) || !errors.Is(err, errClosed)) || err == nil && !daemon {
					t.Error(err)
				}
			})
		}
		if daemon {
			f.start()
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if _, err := c.Version(t.Context()); !errors.Is(err, errClosed) {
			t.Errorf("afterwards: %v", err)
		}
	}
}

// What the daemon answered before it went is heard, although sending to it
// fails already.
func TestAnswerBeforeTheEnd(t *testing.T) {
	s := newScripted(t)
	c, p := s.dial(roomy)
	l := c.current.Load()
	first := make(chan error, 1)
	go func() { first <- c.DestroyPool(t.Context(), "x") }()
	h, _ := p.read()
	if err := l.takeSlot(t.Context(), ioctl.OpVersion); err != nil {
		t.Fatal(err)
	}
	k, err := l.begin(t.Context(), ioctl.OpVersion, &ioctl.Empty{}, nil) // never read by the daemon: its end is a reset
	if err != nil {
		t.Fatal(err)
	}
	p.reply(h, &ioctl.Empty{})
	p.Close()
	if err := <-first; err != nil {
		t.Errorf("answered, and lost: %v", err)
	}
	<-k.done
	if k.err == nil {
		t.Error("an answer to what was never read")
	}
}

// Events are followed across a restart, with a gap between.
func TestEventsAcrossRestart(t *testing.T) {
	f := newFake(t)
	c := f.connect(Options{})
	say := func(numbers ...uint64) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.events = nil
		for _, n := range numbers {
			f.events = append(f.events, ioctl.Event{Seq: n, Time: time.Unix(1, 0)})
		}
	}
	say(7, 8)
	var got []string
	for e, err := range c.Events(t.Context(), EventOptions{Follow: true}) {
		var gap *EventGap
		switch {
		case errors.As(err, &gap):
			got = append(got, fmt.Sprintf("gap %d %v", gap.After, gap.Restarted))
		case err != nil:
			t.Fatal(err)
		default:
			got = append(got, fmt.Sprint(e.Seq))
		}
		if len(got) == 2 {
			say(1)
			f.drop(true)
		}
		if len(got) == 4 {
			break
		}
	}
	if want := []string{"7", "8", "gap 8 true", "1"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A process that has its parent's connection gets an error of its own, and does
// not reach the parent's session.
//
// proves S32
func TestForeignProcess(t *testing.T) {
	f := newFake(t)
	// As a child would find it.
	c := &Conn{socket: f.socket, pid: os.Getpid() + 1}
	l := must(connect(t.Context(), f.socket, c.pid, &c.wg))
	c.current.Store(l)
	defer c.Close()
	before := f.count(ioctl.OpVersion)
	if _, err := c.Version(t.Context()); !errors.Is(err, api.EPERM) {
		t.Error(err)
	}
	if f.count(ioctl.OpVersion) != before {
		t.Error("a message was sent")
	}
	f.drop(false)
	c.broken(l)
	if _, err := c.Version(t.Context()); !errors.Is(err, api.EPERM) {
		t.Errorf("after the connection's end: %v", err)
	}
}

func (f *fake) count(op ioctl.Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done[op]
}

// Shared memory is not mapped in a child, and no descriptor of the library
// outlives exec.
//
// proves S32
func TestNothingIsInherited(t *testing.T) {
	s := newScene(t) // which has an arena
	if n := len(s.c.current.Load().arenas.list); n == 0 {
		t.Fatal("no arena")
	}
	maps := must(os.ReadFile("/proc/self/smaps"))
	// The fake daemon maps the same file in this process, and lets it be
	// inherited: one of two has the flag.
	if n := inheritable(maps); n != 1 {
		t.Errorf("%d mappings are inherited, want the daemon's own", n)
	}
	for _, e := range must(os.ReadDir("/proc/self/fd")) {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err != nil {
			t.Fatal(err)
		}
		kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if err != nil || kind != unix.SOCK_SEQPACKET {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d is not closed by exec: %v", fd, err)
		}
	}
}

// inheritable counts the mappings of an arena that a child would have.
func inheritable(smaps []byte) (n int) {
	arena := false
	for line := range bytes.Lines(smaps) {
		head, rest, _ := strings.Cut(string(line), " ")
		switch {
		case head == "VmFlags:":
			if arena && !slices.Contains(strings.Fields(rest), "dc") {
				n++
			}
			arena = false
		case !strings.HasSuffix(head, ":"):
			arena = strings.Contains(rest, "memfd:fake")
		}
	}
	return n
}
