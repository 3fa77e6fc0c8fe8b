package client

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
)

// proves G43: a call-back that comes when nobody waits any more is heard, though a caller
// has just received its own answer from the socket itself.
func TestCalledBackBesideAnswers(t *testing.T) {
	s := newLender(t, time.Hour)
	_, p := s.open(CreditOptions{})
	asked, kept := firstID, layout.NewObjectID(layout.KindMblock, 2)
	s.put(asked, nil)
	s.put(kept, nil)
	acquire := func(id layout.ObjectID) {
		h, err := p.AcquireCredit(t.Context(), id, CreditRequest{Modes: CreditRead})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Release(); err != nil {
			t.Fatal(err)
		}
	}
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	var wg sync.WaitGroup
	for range 300 {
		acquire(kept)
		early := r.IntN(200)
		wg.Go(func() {
			for range early { // not always at the same moment
				p.c.current.Load().waiting.Load()
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			h, err := s.delete(ctx, kept, 0)
			if err == nil {
				err = h.Release(credit.Version{})
			}
			if err != nil {
				t.Error(err)
			}
		})
		for range r.IntN(4) {
			acquire(asked)
			p.GiveBackCredit(asked)
		}
		if wg.Wait(); t.Failed() {
			return
		}
	}
}

// What a caller waits for that does not come soon is received by the link's goroutine,
// and its context counts meanwhile.
//
// proves G40 S46
func TestWaitsLongerThanItReceives(t *testing.T) {
	s := newLender(t, time.Hour)
	_, p := s.open(CreditOptions{})
	s.put(firstID, nil)
	for range 3 {
		held, err := s.delete(t.Context(), firstID, 0)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*leadTime)
		if _, err := p.AcquireCredit(ctx, firstID, CreditRequest{Modes: CreditRead}); api.CodeOf(err) != api.ETIMEDOUT {
			t.Errorf("beside a deleter: %v", err)
		}
		cancel()
		time.AfterFunc(5*leadTime, func() {
			if err := held.Release(credit.Version{}); err != nil {
				t.Error(err)
			}
		})
		h, err := p.AcquireCredit(t.Context(), firstID, CreditRequest{Modes: CreditRead})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Release(); err != nil {
			t.Error(err)
		}
		p.GiveBackCredit(firstID)
	}
}
