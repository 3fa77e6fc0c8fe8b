package quota_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/quota"
)

// hostile does all that a store may: it shows other records before those that count,
// says that others came between, loses calls and answers.
type hostile struct {
	quota.Store
	mu  sync.Mutex
	rng *rand.Rand // +checklocks:mu
}

func (h *hostile) dice(n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rng.IntN(n)
}

func (h *hostile) View(ctx context.Context, f func(quota.Reader)) error {
	for range h.dice(3) {
		f(quota.NewBooks())
	}
	return h.Store.View(ctx, f)
}

func (h *hostile) Apply(ctx context.Context, g quota.Generation, changes []quota.Change) error {
	switch h.dice(10) {
	case 0, 1:
		return quota.ErrConflict
	case 2:
		return quota.ErrUnknown
	case 3:
		if err := h.Store.Apply(ctx, g, changes); err != nil {
			return err
		}
		return quota.ErrUnknown
	}
	return h.Store.Apply(ctx, g, changes)
}

// proves G22, G23, G24: on a store that does its worst, callers who repeat what they
// do not know the outcome of, under one request id, have it done once.
func TestHostileStore(t *testing.T) {
	const workers, limit = 64, 150
	r := newRig(t, class("x", quota.Unlimited, limit), class("y", 100, quota.Unlimited))
	r.owner("top", "")
	r.owner("low", "top")
	h := &hostile{Store: r.store, rng: rand.New(rand.NewPCG(5, 6))}
	// The clock jumps; what lasts long enough is not touched by it.
	l := quota.New(h, quota.Options{Now: r.clock.Now, Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }})
	var held [2]atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(w)))
			k := worker{t: t, ctx: t.Context(), l: l, name: fmt.Sprint("w", w), rng: rng}
			r.clock.Jump(time.Duration(rng.IntN(3)-1) * time.Second)
			for i := range 6 {
				k.round(i, &held)
			}
		})
	}
	wg.Wait()
	r.used("top", "x", held[0].Load(), 0)
	r.used("", "y", held[1].Load(), 0)
	if held[0].Load() > limit || held[1].Load() > 100 {
		t.Errorf("%d and %d are held", held[0].Load(), held[1].Load())
	}
}

type worker struct {
	t     *testing.T
	ctx   context.Context
	l     *quota.Ledger
	name  string
	rng   *rand.Rand
	calls int
}

// do does a call until its outcome is known.
func (k *worker) do(f func(request string) error) error {
	k.calls++
	request := fmt.Sprint(k.name, " ", k.calls)
	for {
		if err := f(request); !errors.Is(err, quota.ErrUnknown) {
			return err
		}
	}
}

// round claims, provisions, resizes and releases or keeps; held is what is kept.
func (k *worker) round(i int, held *[2]atomic.Int64) {
	x, y := 1+k.rng.Int64N(3), 1+k.rng.Int64N(3)
	ask := quota.Ask{Owner: "low", Amounts: []quota.Amount{{Class: "x", N: x}, {Class: "y", N: y}}, TTL: time.Hour}
	var c *quota.Claim
	err := k.do(func(request string) (err error) {
		ask.Request = request
		c, err = k.l.Reserve(k.ctx, ask)
		return err
	})
	if errors.Is(err, quota.ErrExceeded) {
		return
	}
	if err != nil {
		k.t.Error(err)
		return
	}
	name := fmt.Sprint(k.name, "-", i)
	err = k.do(func(request string) error { _, err := k.l.Provision(k.ctx, c.ID, name, request); return err })
	if err != nil {
		k.t.Error(err)
	}
	more := x + k.rng.Int64N(3)
	err = k.do(func(request string) error {
		_, err := k.l.Resize(k.ctx, quota.ByReal(name), []quota.Amount{{Class: "x", N: more}}, request)
		return err
	})
	switch {
	case err == nil:
		x = more
	case !errors.Is(err, quota.ErrExceeded) || more == x:
		k.t.Error(err)
	}
	if k.rng.IntN(2) == 0 {
		held[0].Add(x)
		held[1].Add(y)
		return
	}
	if err := k.do(func(request string) error { _, err := k.l.Release(k.ctx, quota.ByReal(name), request); return err }); err != nil {
		k.t.Error(err)
	}
}

// proves G23: pauses grow, are random, and have a bound; the part that is random is
// not small.
func TestPausesAreRandom(t *testing.T) {
	r := newRig(t)
	var asked, slept []time.Duration
	l := quota.New(&conflicting{Store: r.store, left: 30, t: t}, quota.Options{
		Jitter: func(d time.Duration) time.Duration { asked = append(asked, d); return d / 3 },
		Sleep:  func(_ context.Context, d time.Duration) error { slept = append(slept, d); return nil },
	})
	r.is(l.Define(t.Context(), class("x", 1, 1)), nil)
	if len(asked) != 30 || len(slept) != 30 {
		t.Fatalf("%d pauses, %d of them random", len(slept), len(asked))
	}
	for i := range slept {
		if i > 0 && asked[i] < asked[i-1] || asked[i] > time.Second {
			t.Errorf("pause %d: %v after %v", i, asked[i], asked[max(i, 1)-1])
		}
		if rest := slept[i] - asked[i]/3; rest < 0 || rest > asked[i] {
			t.Errorf("pause %d: %v, of which up to %v is random", i, slept[i], asked[i])
		}
	}
	if asked[29] <= asked[0] {
		t.Error("pauses do not grow")
	}
}
