package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// all chooses every request.
func all(*ring.Descriptor) bool { return true }

// only chooses one operation's requests.
func only(op ioctl.Op) func(d *ring.Descriptor) bool {
	return func(d *ring.Descriptor) bool { return ioctl.Op(d.Op) == op }
}

func (f *fake) withholdThose(choose func(d *ring.Descriptor) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.withhold = choose
}

// idle checks that the ring has nothing under way and nobody within.
func (r *sharedRing) idle(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.free) != len(r.slots) || r.inside != 0 || r.leader != nil || r.parked.first != nil || len(r.queue) != 0 {
		t.Errorf("%d of %d slots are free, %d within, leader %v, followers %v, %d wait",
			len(r.free), len(r.slots), r.inside, r.leader != nil, r.parked.first != nil, len(r.queue))
	}
}

// comesIdle is idle once what was given up has been answered, which it reads for
// to have it taken.
func (s *scene) comesIdle(r *sharedRing) {
	s.t.Helper()
	for until := time.Now().Add(inVain); time.Now().Before(until); time.Sleep(time.Millisecond) {
		s.f.letGo(all)
		if err := s.read(s.t.Context(), 10); err != nil {
			s.t.Error(err)
		}
		r.mu.Lock()
		n := len(r.slots) - len(r.free)
		r.mu.Unlock()
		if n == 0 {
			break
		}
	}
	r.idle(s.t)
}

// leading waits until somebody leads and so many follow.
func (r *sharedRing) leading(t *testing.T, followers int) {
	t.Helper()
	for until := time.Now().Add(inVain); ; time.Sleep(100 * time.Microsecond) {
		r.mu.Lock()
		n := 0
		for w := r.parked.first; w != nil; w = w.next {
			n++
		}
		ok := r.leader != nil && n == followers
		r.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%d follow, want %d", n, followers)
		}
	}
}

// All data travels through the ring once there is one, whatever its length and
// place.
func TestRingCarries(t *testing.T) {
	s := newRingScene(t)
	ctx := t.Context()
	var through atomic.Int64
	s.f.withholdThose(func(*ring.Descriptor) bool { through.Add(1); return false })
	random := make([]byte, 6*chunk)
	rng := rand.NewChaCha8([32]byte{1})
	must(rng.Read(random))
	want := int64(0)
	for _, n := range []int{0, 1, 511, page - 1, page, page + 1, 8 * page, chunk - 1, chunk, chunk + 1, 3*chunk + 5, 6 * chunk} {
		data := random[:n]
		pieces := int64(max((n+chunk-1)/chunk, 1))
		m := must(s.p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(n)}))
		want++
		if got, err := m.Write(ctx, data); got != n || err != nil {
			t.Fatalf("write of %d: %d, %v", n, got, err)
		}
		want += pieces
		for _, off := range []int{0, 1, n / 2} {
			if off > n {
				continue
			}
			p := make([]byte, n-off)
			if got, err := m.ReadAtContext(ctx, p, int64(off)); got != len(p) || err != nil {
				t.Fatalf("read of %d at %d: %d, %v", n, off, got, err)
			}
			if !bytes.Equal(p, data[off:]) {
				t.Fatalf("read of %d at %d: other bytes", n, off)
			}
			want += int64(max((len(p)+chunk-1)/chunk, 1))
		}
		if got, err := m.ReadAtContext(ctx, make([]byte, 10), int64(n)); got != 0 || err == nil {
			t.Fatalf("read past the end of %d: %d, %v", n, got, err)
		}
		want++
	}
	for i := range 3 {
		record := bytes.Repeat([]byte{byte(i)}, i*i*20_000)
		if got, err := s.app.Append(ctx, record, i == 1); got != uint64(2*i+2) || err != nil {
			t.Errorf("append: %d, %v", got, err)
		}
		if err := errors.Join(s.mdc.Append(ctx, record, true), s.app.Sync(ctx), s.mdc.Sync(ctx)); err != nil {
			t.Error(err)
		}
		want += 4
	}
	if n, _ := s.app.Len(); n != 7 { // with the container's, of the same log, but its last
		t.Errorf("%d records", n)
	}
	if got := through.Load(); got != want {
		t.Errorf("%d requests through the ring, want %d", got, want)
	}
	s.c.ringed(t).idle(t)
}

// A leader whose context ends, and one whose call is answered, hands over: those
// who follow are served.
//
// proves S46
func TestLeaderLeaves(t *testing.T) {
	for _, how := range []string{"its context ends", "its call is answered", "its call fails"} {
		t.Run(how, func(t *testing.T) {
			s := newRingScene(t)
			r := s.c.ringed(t)
			s.f.withholdThose(all)
			leaderCtx, cancel := context.WithCancel(t.Context())
			var leader, followers sync.WaitGroup
			leader.Go(func() {
				err := s.app.Sync(leaderCtx)
				switch {
				case how == "its context ends" && !errors.Is(err, api.EUNKNOWN),
					how == "its call is answered" && err != nil,
					how == "its call fails" && !errors.Is(err, api.EIO):
					t.Error(err)
				}
			})
			s.f.withheld(1)
			r.leading(t, 0)
			const n = 5
			for range n {
				followers.Go(func() {
					if err := s.read(t.Context(), 100); err != nil {
						t.Error(err)
					}
				})
			}
			s.f.withheld(1 + n)
			r.leading(t, n)
			switch how {
			case "its context ends":
				cancel()
			case "its call fails":
				s.f.mu.Lock()
				s.f.refuse = func(op ioctl.Op) error {
					if op == ioctl.OpSync {
						return api.EIO
					}
					return nil
				}
				s.f.mu.Unlock()
				fallthrough
			default:
				s.f.letGo(only(ioctl.OpSync))
			}
			leader.Wait()
			s.f.letGo(only(ioctl.OpMblockRead))
			followers.Wait()
			s.f.withholdThose(nil)
			s.comesIdle(r)
			cancel()
		})
	}
}

// A follower whose context ends leaves at once; its memory is nobody else's
// until the answer has come.
//
// proves S46
func TestFollowerLeaves(t *testing.T) {
	s := newRingScene(t)
	r := s.c.ringed(t)
	s.f.withholdThose(all)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.app.Sync(t.Context()); err != nil {
			t.Error(err)
		}
	})
	s.f.withheld(1)
	r.leading(t, 0)
	for i, n := range []int{100, 50_000} {
		ctx, cancel := context.WithCancel(t.Context())
		var leave sync.WaitGroup
		leave.Go(func() {
			if err := s.read(ctx, n); !errors.Is(err, api.ECANCELED) {
				t.Errorf("read: %v", err)
			}
		})
		leave.Go(func() {
			if _, err := s.app.Append(ctx, s.data[:n], true); !fits(err, "EUNKNOWN 2") {
				t.Errorf("append: %v", err)
			}
		})
		s.f.withheld(1 + 2*(i+1))
		r.leading(t, 2)
		cancel()
		leave.Wait()
	}
	r.mu.Lock()
	late := len(r.slots) - len(r.free)
	r.mu.Unlock()
	if late != 5 {
		t.Errorf("%d slots are in use, want the leader's and 4", late)
	}
	s.f.letGo(all)
	wg.Wait()
	s.f.withholdThose(nil)
	s.comesIdle(r)
	l := s.c.current.Load()
	l.arenas.mu.Lock()
	defer l.arenas.mu.Unlock()
	for _, x := range l.arenas.list {
		if !x.kept && x.busy != 0 {
			t.Errorf("%d pages are busy", x.busy)
		}
	}
}

// An answer on the ring and an error on the socket for one request, in either
// order and more than once, end the call once; answers to nothing end none.
func TestAnsweredTwice(t *testing.T) {
	s := newRingScene(t)
	r := s.c.ringed(t)
	i := 0
	s.f.mu.Lock()
	s.f.instead = func(x *fakeRing, d *ring.Descriptor) {
		i++
		fail := func(tag uint64, op ioctl.Op) {
			b := must(ioctl.Append(nil, ioctl.Header{Op: op, Flags: ioctl.FlagReply | ioctl.FlagError, Tag: tag}, ioctl.NewError(api.EIO)))
			must(x.s.conn.Write(b))
		}
		for _, stray := range []uint64{d.Tag + 1, d.Tag | 1<<slotBits - 1, d.Tag | 15<<slotBits, d.Tag + 1<<countFrom} {
			fail(stray, ioctl.Op(d.Op))
		}
		if i%5 == 0 { // an answer to nothing on the ring, and the error on the socket
			x.d.Complete(&ring.Completion{Tag: d.Tag + uint64(i%7), Op: d.Op + 1})
			x.d.Notify()
			fail(d.Tag, ioctl.Op(d.Op))
			return
		}
		fail(d.Tag, ioctl.OpAppend)
		if i%2 == 0 {
			fail(d.Tag, ioctl.Op(d.Op))
			fail(d.Tag, ioctl.Op(d.Op))
		}
		x.d.Complete(&ring.Completion{Tag: d.Tag, Op: d.Op})
		x.d.Notify()
		if i%3 == 0 {
			fail(d.Tag, ioctl.Op(d.Op))
		}
	}
	s.f.mu.Unlock()
	for range 300 {
		if err := s.app.Sync(t.Context()); err != nil && !errors.Is(err, api.EIO) {
			t.Fatal(err)
		}
	}
	s.f.mu.Lock()
	s.f.instead = nil
	s.f.mu.Unlock()
	if err := s.read(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	r.idle(t)
}

// What was answered in the ring before the connection broke is answered.
//
// proves S36
func TestAnsweredBeforeItBroke(t *testing.T) {
	for range 50 {
		s := newRingScene(t)
		s.f.breakAt(ioctl.OpAppend, afterAnswer, true)
		if n, err := s.app.Append(t.Context(), []byte("x"), true); n != 2 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
}

// Pieces of a write are in their order, and a write that fails between others
// leaves an mblock that cannot be committed; one that is refused whole leaves it
// as it was.
//
// proves S11
func TestWriteInPieces(t *testing.T) {
	for _, c := range []struct {
		known  bool // that it fits
		fail   int  // which piece
		usable bool
	}{{true, 0, false}, {true, 2, false}, {false, 0, true}, {false, 2, false}, {true, 7, true}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			s := newRingScene(t)
			ctx := t.Context()
			o := api.AllocOptions{}
			if c.known {
				o.Capacity = 16 * chunk
			}
			m := must(s.p.AllocMblock(ctx, o))
			data := make([]byte, 8*chunk)
			for i := range data {
				data[i] = byte(i / page)
			}
			s.f.mu.Lock()
			seen := 0
			s.f.refuse = func(op ioctl.Op) error {
				if op == ioctl.OpMblockWrite {
					if seen++; seen == c.fail+1 {
						return api.EAGAIN
					}
				}
				return nil
			}
			s.f.mu.Unlock()
			n, err := m.Write(ctx, data)
			if n != c.fail*chunk || !errors.Is(err, api.EAGAIN) {
				t.Errorf("%d, %v", n, err)
			}
			if err := m.Commit(ctx); c.usable != (err == nil) {
				t.Errorf("commit: %v", err)
			}
			p := make([]byte, n)
			if got, err := m.ReadAtContext(ctx, p, 0); got != n || err != nil && n > 0 || !bytes.Equal(p, data[:n]) {
				t.Errorf("%d, %v", got, err)
			}
		})
	}
}

// A child of the process that made a mark sees that it is another one.
//
// proves S32
func TestMark(t *testing.T) {
	var owner int
	m := newMark(&owner, os.Getpid())
	if !m.here() || m.word == nil {
		t.Error("not here")
	}
	// What the kernel does to the word in a child: see madvise(2).
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	if pid == 0 { // nothing of the runtime may be used here
		code := uintptr(0)
		if *m.word != 0 {
			code = 1
		}
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, code, 0, 0)
		}
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(int(pid), &ws, 0, nil); err != nil || ws.ExitStatus() != 0 {
		t.Errorf("%v, exit status %d", err, ws.ExitStatus())
	}
	if !m.here() {
		t.Error("no longer here")
	}
	runtime.KeepAlive(&owner)
}
