package embedded_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/quota"
	"github.com/mpool-go/mpool/quota/embedded"
	"github.com/mpool-go/mpool/sched"
)

var seeds = flag.Uint64("embedded.seeds", 3, "how many seeds crash")

func embeddedPool(disk *sim.Disk) (*mpool.Pool, error) {
	return mpool.Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, options(nil, disk, sim.OpenOptions{}))
}

// history is what a store went through: the records after each change, in order, and
// how many changes are known to be durable.
type history struct {
	states []string
	acked  int
}

// recorder notes acknowledgements.
type recorder struct {
	*embedded.Store
	h    *history
	base int // states when it was opened
}

func (r *recorder) Apply(ctx context.Context, g quota.Generation, changes []quota.Change) error {
	err := r.Store.Apply(ctx, g, changes)
	if err == nil && len(changes) > 0 {
		// The store's generation is 1 when it is opened, with the first state.
		r.h.acked = max(r.h.acked, r.base+int(g))
	}
	return err
}

// life opens the store, judges what it has by its history, and lets claimants work.
func life(s *sched.Sched, disk *sim.Disk, o sim.OpenOptions, h *history, ops int) error {
	return lifeOn(s, disk, o, h, ops, func(mdc api.MDC) api.MDC { return mdc })
}

// lifeOn is life with something between the store and its container.
func lifeOn(s *sched.Sched, disk *sim.Disk, o sim.OpenOptions, h *history, ops int, between func(api.MDC) api.MDC) error {
	at := len(h.states)
	opt := embedded.Options{Changed: func(r quota.Reader, _ []quota.Change) { h.states = append(h.states, dump(r)) }}
	p, st, err := openOn(s, disk, o, 48<<10, opt, between)
	if err != nil {
		return err
	}
	now := h.states[at]
	found := false
	for i := h.acked; i < at && !found; i++ {
		found = h.states[i] == now
	}
	if !found && at > 0 {
		return fmt.Errorf("%d of %d states are durable, and it is none from there on:\n%s", h.acked, at, now)
	}
	h.states, h.acked = []string{now}, 0
	if err := st.Verify(); err != nil {
		return err
	}
	rec := &recorder{Store: st, h: h}
	rec.base = -1 // the generation of the first state
	if err := st.View(bg, func(r quota.Reader) { rec.base = 1 - int(r.Generation()) }); err != nil {
		return err
	}
	l := quota.New(rec, quota.Options{
		Now: s.Now, Sleep: s.Sleep, Jitter: func(d time.Duration) time.Duration { return time.Duration(s.Rand().Int64N(int64(d))) },
	})
	const tasks = 4
	var done sched.Completion
	done.Init(s)
	left := tasks
	var failed error
	for n := range tasks {
		s.Go("claimant", func() {
			if err := claimant(l, s.Rand(), n, ops); err != nil {
				failed = errors.Join(failed, err)
			}
			if left--; left == 0 {
				done.Done()
			}
		})
	}
	if err := done.Wait(bg); err != nil {
		return err
	}
	return errors.Join(failed, st.Verify(), st.Close(bg), p.Close())
}

// long makes a request id that fills the log, so that it is compacted often.
func long(rng *rand.Rand) string { return fmt.Sprintf("%0250d", rng.Uint64()) }

// claimant does what claimants do.
func claimant(l *quota.Ledger, rng *rand.Rand, n, ops int) error {
	owner := fmt.Sprint("o", n%2)
	c := quota.NewClass("x", quota.Count)
	c.Default, c.Total = 60, 90
	if err := l.Define(bg, c); err != nil {
		return err
	}
	for range ops {
		all, err := l.Claims(bg, "")
		if err != nil {
			return err
		}
		some := []quota.Amount{{Class: "x", N: 1 + rng.Int64N(9)}}
		switch k := rng.IntN(10); {
		case k < 4 || len(all) == 0:
			a := quota.Ask{Owner: owner, Amounts: some, TTL: time.Duration(1+rng.IntN(50)) * time.Millisecond}
			if rng.IntN(3) > 0 {
				a.Request = long(rng)
			}
			if len(all) > 0 && rng.IntN(2) == 0 {
				a.Parent = all[rng.IntN(len(all))].ID
			}
			_, err = l.Reserve(bg, a)
		case k == 4:
			_, err = l.Resize(bg, quota.ByID(all[rng.IntN(len(all))].ID), some, long(rng))
		case k == 5:
			_, err = l.Provision(bg, all[rng.IntN(len(all))].ID, fmt.Sprint("real-", rng.Uint64()), "")
		case k == 6:
			_, err = l.Transfer(bg, quota.ByID(all[rng.IntN(len(all))].ID), owner, "")
		case k == 7:
			_, err = l.Expire(bg)
		case k == 8:
			err = l.SetLimit(bg, quota.OwnerLimit{Owner: owner, Class: "x", Limit: quota.Limit(rng.IntN(60))})
		default:
			_, err = l.Release(bg, quota.ByID(all[rng.IntN(len(all))].ID), long(rng))
		}
		for _, fine := range []error{quota.ErrExceeded, quota.ErrNotFound, quota.ErrExpired, quota.ErrState, quota.ErrFull} {
			if errors.Is(err, fine) {
				err = nil
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// proves G22, G24, G27
//
// The power fails at any write of the store, of its compactions, of its creation, and
// again in the lives that follow: the records are those after some change, and of none
// that comes before the last that was acknowledged; the sums are theirs.
func TestCrashAtAnyWrite(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 21))
			disk := newDisk(t, sched.New(seed))
			h := &history{}
			cuts := 0
			for n := range 8 {
				s := sched.New(rng.Uint64())
				cutter := &sim.Cutter{Sched: s, At: 1 + rng.Uint64N(1000)}
				var failed error
				err := s.Run(func() { failed = life(s, disk, sim.OpenOptions{OnIO: cutter.OnIO}, h, 1+rng.IntN(120)) })
				if failed != nil || err != nil && !errors.Is(err, sched.ErrCut) {
					t.Fatalf("seed %d, life %d: %v, %v", seed, n, failed, err)
				}
				if err != nil {
					cuts++
				}
				if rng.IntN(3) == 0 {
					disk.Kill(rng)
				} else {
					disk.PowerCut(rng, sim.CutOptions{})
				}
			}
			t.Logf("seed %d: %d cuts", seed, cuts)
		})
	}
}
