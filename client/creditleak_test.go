package client

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// proves G41: of what was asked for by calls that have given up, and came all the
// same, no more is kept than of what was released.
func TestCreditsGivenUp(t *testing.T) {
	s := newLender(t, 0)
	const most, callers, each = 5, 4, 150
	_, p := s.open(CreditOptions{Cached: most})
	seed := rand.Uint64()
	t.Log("seed", seed)
	var all sync.WaitGroup
	var mu sync.Mutex
	granted, refused := 0, 0
	for g := range callers {
		r := rand.New(rand.NewPCG(seed, uint64(g)))
		all.Go(func() {
			for i := range each {
				id := layout.NewObjectID(layout.KindMblock, uint64(g*each+i+1))
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(400))*time.Microsecond)
				h, err := p.AcquireCredit(ctx, id, CreditRequest{Modes: CreditRead})
				cancel()
				mu.Lock()
				if err == nil {
					granted++
					err = h.Release()
				} else if code := api.CodeOf(err); code == api.ETIMEDOUT {
					refused, err = refused+1, nil
				}
				mu.Unlock()
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	t.Log(granted, "granted,", refused, "given up")
	c := p.c.current.Load().credits.of(p)
	for end := time.Now().Add(inVain); ; time.Sleep(time.Millisecond) {
		n, _ := s.root.Size()
		mine, _ := c.owner.Size()
		c.mu.Lock()
		known := len(c.known)
		c.mu.Unlock()
		if n <= most && mine <= most && known <= most {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the daemon has lent %d objects, of which %d are there, %d known: want %d at most", n, mine, known, most)
		}
	}
}
