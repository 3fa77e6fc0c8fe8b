package client

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// Many goroutines use a connection that breaks all the time: every call returns
// what it may, none hangs, and what was committed is there.
//
// proves S36
func TestBreaksAllTheTime(t *testing.T) {
	for way, scene := range ways {
		t.Run(way, func(t *testing.T) { testBreaksAllTheTime(t, scene(t)) })
	}
}

func testBreaksAllTheTime(t *testing.T, s *scene) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var rngMu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 1))
	s.f.mu.Lock()
	s.f.fault = func(op ioctl.Op) (boundary, bool) {
		rngMu.Lock()
		defer rngMu.Unlock()
		if op == ioctl.OpHello || rng.IntN(60) != 0 {
			return never, false
		}
		return boundary(1 + rng.IntN(3)), rng.IntN(2) == 0
	}
	s.f.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), inVain)
	defer cancel()
	var wg sync.WaitGroup
	var calls, broken atomic.Int64
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(g)+2))
			for range 60 {
				s.oneOf(ctx, r.IntN(5), &calls, &broken)
			}
		})
	}
	wg.Wait()
	s.f.heal()
	t.Logf("%d calls, %d broken, %d connections", calls.Load(), broken.Load(), s.f.accepted)
	if ctx.Err() != nil {
		t.Error("a call hung")
	}
}

// oneOf does one of a few things with objects of its own.
func (s *scene) oneOf(ctx context.Context, what int, calls, broken *atomic.Int64) {
	allowed := func(err error, codes ...api.Code) bool {
		calls.Add(1)
		if err == nil {
			return true
		}
		broken.Add(1)
		// A connection that breaks four times under one call.
		if !slices.Contains(append(codes, api.ECONNRESET), api.CodeOf(err)) {
			s.t.Errorf("%d: %v", what, err)
		}
		return false
	}
	b, err := s.p.AllocMblock(ctx, api.AllocOptions{})
	if !allowed(err) {
		return
	}
	if _, err := b.Write(ctx, s.data[:100+what*20_000]); !allowed(err, api.EBADF) {
		return
	}
	if !allowed(b.Commit(ctx), api.EBADF, api.EUNKNOWN) {
		return
	}
	p := make([]byte, 100)
	if _, err := b.ReadAtContext(ctx, p, 0); allowed(err, api.EBADF) && !bytes.Equal(p, s.data[:100]) {
		s.t.Error("other bytes")
	}
	allowed(b.Put())
	again, err := s.p.Mblock(ctx, b.ID())
	if !allowed(err) { // it was committed: ENOENT is not allowed
		return
	}
	switch what {
	case 0:
		allowed(again.Delete(ctx), api.EBADF, api.EUNKNOWN)
	case 1:
		_, err := again.Info(ctx)
		allowed(err, api.EBADF)
	case 2:
		allowed(s.p.SetRoots(ctx, []api.Root{{Name: "r", ID: b.ID()}}), api.EUNKNOWN)
	case 3:
		allowed(drain(s.p.Objects(ctx, api.Filter{})))
	default:
		allowed(s.c.SetPool(ctx, "data", api.PoolSettings{}), api.EUNKNOWN)
	}
}
