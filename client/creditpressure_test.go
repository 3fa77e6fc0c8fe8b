package client

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
)

var pressureOpens = flag.Int("client.pressure", 60, "how many mblocks each goroutine opens under pressure")

// proves G41, G42: whatever number of goroutines open and read far more mblocks than may be
// cached, what is cached stays within its bounds at every moment, and who wants one of
// them gets it beside the fills.
func TestCreditsManyObjects(t *testing.T) {
	s := newLender(t, 0)
	const objects, readers, most, limit = 10_000, 8, 50, 40 << 10
	c, p := s.open(CreditOptions{Cached: most, Bytes: limit})
	id := func(i int) layout.ObjectID { return layout.NewObjectID(layout.KindMblock, uint64(i+1)) }
	data := contents(3000, 1)
	for i := range objects {
		s.put(id(i), data)
	}
	seed := rand.Uint64()
	t.Log("seed", seed)
	var all, others sync.WaitGroup
	for g := range readers {
		r := rand.New(rand.NewPCG(seed, uint64(g)))
		all.Go(func() {
			buf := make([]byte, len(data))
			for range *pressureOpens {
				m, err := p.Mblock(t.Context(), id(min(r.IntN(objects), r.IntN(objects), r.IntN(objects))/(1+r.IntN(40))))
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := m.ReadAt(buf, 0); err != nil && api.CodeOf(err) != api.EBUSY || err == nil && !bytes.Equal(buf, data) {
					t.Errorf("read: %v", err)
				}
				if err := m.Put(); err != nil {
					t.Error(err)
				}
				own, _ := p.c.current.Load().credits.of(p).owner.Size()
				// Each reader has one open, and one that it is giving back.
				if st := c.CreditStats(); st.Idle > most || st.Bytes > limit || own > most+2*readers {
					t.Errorf("%d credits of objects are there; %+v", own, st)
				}
			}
		})
	}
	done := make(chan struct{})
	var took []time.Duration
	others.Go(func() { // wants what is used most
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			start := time.Now()
			h, err := s.delete(t.Context(), id(i%100), 0)
			if err == nil {
				err = h.Release(credit.Version{})
			}
			if err != nil {
				t.Error(err)
				return
			}
			took = append(took, time.Since(start))
		}
	})
	all.Wait()
	close(done)
	others.Wait()
	slices.Sort(took)
	t.Logf("%d were had by another one, in %v, the last one in %v; %+v", len(took), took[len(took)/2], took[len(took)-1], c.CreditStats())
	for end := time.Now().Add(inVain); ; time.Sleep(time.Millisecond) { // what is given back is on its way
		if n, _ := s.root.Size(); n <= most {
			return
		} else if time.Now().After(end) {
			t.Fatalf("%d objects are lent", n)
		}
	}
}
