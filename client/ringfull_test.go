package client

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// More callers than the ring has entries wait their turn, no longer than their
// contexts, and what they waited for in vain was not done.
//
// proves S46
func TestRingFull(t *testing.T) {
	s := newRingScene(t)
	r := s.c.ringed(t)
	s.f.withholdThose(all)
	var wg sync.WaitGroup
	for range len(r.slots) {
		wg.Go(func() {
			if err := s.read(t.Context(), 10); err != nil {
				t.Error(err)
			}
		})
	}
	s.f.withheld(len(r.slots))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	before := s.f.did(ioctl.OpAppend)
	if _, err := s.app.Append(ctx, []byte("x"), false); !errors.Is(err, api.ETIMEDOUT) {
		t.Errorf("append to a full ring: %v", err)
	}
	for range 2 * len(r.slots) {
		wg.Go(func() {
			if err := s.read(t.Context(), 10); err != nil {
				t.Error(err)
			}
		})
	}
	for {
		r.mu.Lock()
		n := len(r.queue)
		r.mu.Unlock()
		if n == 2*len(r.slots) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s.f.withholdThose(nil)
	s.f.letGo(all)
	wg.Wait()
	r.idle(t)
	if after := s.f.did(ioctl.OpAppend); after != before {
		t.Errorf("%d appends were done that never were in the ring", after-before)
	}
}

func (f *fake) did(op ioctl.Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done[op]
}

// A full ring whose connection breaks, or whose program closes it, ends every
// call: those under way and those that wait for a slot.
//
// proves S36
func TestRingFullDies(t *testing.T) {
	for _, closes := range []bool{false, true} {
		s := newRingScene(t)
		r := s.c.ringed(t)
		s.f.withholdThose(all)
		var wg sync.WaitGroup
		for range 2 * len(r.slots) {
			wg.Go(func() {
				_, err := s.app.Append(t.Context(), []byte("x"), true)
				if !errors.Is(err, api.EUNKNOWN) && !errors.Is(err, api.EBADF) {
					t.Error(err)
				}
			})
		}
		s.f.withheld(len(r.slots))
		if closes {
			if err := s.c.Close(); err != nil {
				t.Error(err)
			}
		} else {
			s.f.drop(true)
		}
		wg.Wait()
		r.idle(t)
		r.mu.Lock()
		if r.mem != nil {
			t.Error("the ring's memory is not given back")
		}
		r.mu.Unlock()
	}
}

// Many goroutines share a ring whose daemon answers in any order, fails some
// requests and holds others longer than their contexts: each call gets its own
// answer, once.
func TestRingManyCallers(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := newRingScene(t)
	r := s.c.ringed(t)
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 1))
	chance := func(n int) bool {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n) == 0
	}
	s.f.mu.Lock()
	s.f.withhold = func(*ring.Descriptor) bool { return chance(3) }
	s.f.refuse = func(op ioctl.Op) error {
		if op == ioctl.OpMblockRead && chance(10) {
			return api.EIO
		}
		return nil
	}
	s.f.mu.Unlock()
	stop := make(chan struct{})
	var releaser, wg sync.WaitGroup
	releaser.Go(func() {
		for {
			s.f.letGo(func(*ring.Descriptor) bool { return chance(2) })
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Microsecond):
			}
		}
	})
	for g := range 200 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(g)+2))
			for range 20 {
				s.oneRead(t, rng)
			}
		})
	}
	wg.Wait()
	s.f.withholdThose(nil)
	s.f.letGo(all)
	close(stop)
	releaser.Wait()
	s.f.mu.Lock()
	s.f.refuse = nil
	s.f.mu.Unlock()
	s.comesIdle(r)
}

// oneRead reads something, perhaps with little patience, and checks it.
func (s *scene) oneRead(t *testing.T, rng *rand.Rand) {
	t.Helper()
	ctx, cancel := t.Context(), context.CancelFunc(func() {})
	if rng.IntN(8) == 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(1000))*time.Microsecond)
	}
	defer cancel()
	off := rng.IntN(len(s.data))
	n := rng.IntN(min(len(s.data)-off, 3*page) + 1)
	p := make([]byte, n)
	got, err := s.old.ReadAtContext(ctx, p, int64(off))
	switch {
	case err == nil && (got != n || !bytes.Equal(p, s.data[off:off+n])):
		t.Errorf("read of %d at %d: %d other bytes", n, off, got)
	case err != nil && !errors.Is(err, api.EIO) && (ctx.Err() == nil || !errors.Is(err, api.ETIMEDOUT)):
		t.Error(err)
	}
}
