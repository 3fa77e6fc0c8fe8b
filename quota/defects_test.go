package quota_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/quota"
)

// What quota managers before this one got wrong, each a test.

// Two rows of one class in one claim are counted together (placement 1778743).
func TestPlacementSameClassTwice(t *testing.T) {
	r := newRig(t, class("x", 5, 5))
	_, err := r.Reserve(t.Context(), quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 3}, {Class: "x", N: 3}}})
	r.refuses(err, quota.Exceeded{Class: "x", Owner: "a", Used: 0, Asked: 6, Limit: 5})
}

// Who is over the limit can shrink (placement 2104040, 1924123, 1941892, 1943191).
func TestPlacementShrinkOverLimit(t *testing.T) {
	r := newRig(t, class("x", 10, 10), class("y", 10, 10))
	c := r.mustTake("a", "x", 8)
	r.is(r.Define(t.Context(), class("x", 4, 4)), nil)
	for _, n := range []int64{8, 6, 5, 4, 1} {
		_, err := r.Resize(t.Context(), quota.ByID(c.ID), []quota.Amount{{Class: "x", N: n}, {Class: "y", N: 1}}, "")
		r.is(err, nil)
	}
}

// conflicting answers so many writes with a conflict and wants a fresh view for each.
type conflicting struct {
	quota.Store
	left  int
	views int
	t     *testing.T
}

func (c *conflicting) View(ctx context.Context, f func(quota.Reader)) error {
	c.views++
	return c.Store.View(ctx, f)
}

func (c *conflicting) Apply(ctx context.Context, g quota.Generation, changes []quota.Change) error {
	if c.views != 1 {
		c.t.Errorf("%d views before a write", c.views)
	}
	c.views = 0
	if c.left--; c.left >= 0 {
		return quota.ErrConflict
	}
	return c.Store.Apply(ctx, g, changes)
}

// Conflicts are retried inside (placement 1719933; Kubernetes 67761, helm 9710), with a
// fresh view each time (placement 1818498), however many there are, without growing
// the stack (placement 1804453), and with pauses that grow to a bound.
func TestPlacementRetryInside(t *testing.T) {
	s := &conflicting{Store: quota.NewMemory(), left: 100_000, t: t}
	var longest time.Duration
	l := quota.New(s, quota.Options{Sleep: func(_ context.Context, d time.Duration) error {
		longest = max(longest, d)
		return nil
	}})
	if err := l.Define(t.Context(), class("x", 1, 1)); err != nil {
		t.Error(err)
	}
	if longest <= 0 || longest > 100*time.Millisecond {
		t.Errorf("the longest pause was %v", longest)
	}
	s.left = 1 << 30
	ctx, cancel := context.WithCancel(t.Context())
	l = quota.New(s, quota.Options{Sleep: func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() }})
	_, err := l.Reserve(ctx, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}})
	if !errors.Is(err, context.Canceled) || errors.Is(err, quota.ErrConflict) {
		t.Errorf("at the end of its context: %v", err)
	}
}

// A claim that is refused leaves neither a charge nor an owner, and the next one works
// (placement 1778591, 1778576, 1780799).
func TestPlacementNoOrphans(t *testing.T) {
	r := newRig(t, class("x", 5, 5))
	_, err := r.take("a", "x", 6)
	r.is(err, quota.ErrExceeded)
	if list, err := r.Owners(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("owners %v, %v", list, err)
	}
	r.mustTake("a", "x", 5)
}

// Release says that there is nothing, the second time.
func TestPlacementDeleteTwice(t *testing.T) {
	r := newRig(t, class("x", 5, 5))
	c := r.mustTake("a", "x", 5)
	_, err := r.Release(t.Context(), quota.ByID(c.ID), "")
	r.is(err, nil)
	_, err = r.Release(t.Context(), quota.ByID(c.ID), "")
	r.is(err, quota.ErrNotFound)
	r.used("a", "x", 0, 0)
}

// The very first claims of an owner race, when there is no row to lock yet (cinder
// 1484343).
func TestCinderFirstRowsRace(t *testing.T) {
	for range 20 {
		r := newRig(t, class("x", 100, 3))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { _, _ = r.take("new", "x", 1) })
		}
		wg.Wait()
		r.used("new", "x", 0, 3)
	}
}

// What counts is decided in one place, by state: everything that there is a record of
// (cinder 1923828, 1923829, 1923830, 1919161, 1917450, 1952420, 1877164).
func TestCinderEveryRecordCounts(t *testing.T) {
	ctx := t.Context()
	r := newRig(t, class("x", 100, 100))
	want := quota.Sum{}
	for i := range 6 {
		c := r.mustTake("a", "x", int64(i+1))
		if i%2 == 0 {
			_, err := r.Provision(ctx, c.ID, fmt.Sprint("r", i), "")
			r.is(err, nil)
			want.Held += int64(i + 1)
		} else {
			want.Reserved += int64(i + 1)
		}
	}
	r.used("a", "x", want.Held, want.Reserved)
	_, err := r.take("a", "x", 100-want.Total()+1)
	r.is(err, quota.ErrExceeded)
}

// More than 32 bits can be used (cinder 2137642).
func TestCinderNoOverflow(t *testing.T) {
	r := newRig(t, class("x", quota.Unlimited, 1<<40))
	for range 3 {
		r.mustTake("a", "x", 1<<31)
	}
	r.used("a", "x", 0, 3<<31)
}

// A changed limit counts at once (cinder 1697906).
func TestCinderLimitAtOnce(t *testing.T) {
	r := newRig(t, class("x", 10, 1))
	r.mustTake("a", "x", 1)
	_, err := r.take("a", "x", 1)
	r.is(err, quota.ErrExceeded)
	r.limit("a", "x", 2)
	r.mustTake("a", "x", 1)
}

// Of two that race for the last, one gets it; not none (nova 1716706).
func TestNovaOneOfTwoWins(t *testing.T) {
	for range 100 {
		r := newRig(t, class("x", 1, 1))
		var won atomic.Int32
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, err := r.take("a", "x", 1); err == nil {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d got the last one", won.Load())
		}
	}
}

// A resize is checked for the difference, and counts once (nova, counting from
// placement).
func TestNovaResizeCountsOnce(t *testing.T) {
	r := newRig(t, class("x", 10, 10))
	c := r.mustTake("a", "x", 6)
	_, err := r.Resize(t.Context(), quota.ByID(c.ID), []quota.Amount{{Class: "x", N: 10}}, "")
	r.is(err, nil)
	r.used("a", "x", 0, 10)
	_, err = r.Resize(t.Context(), quota.ByID(c.ID), []quota.Amount{{Class: "x", N: 11}}, "")
	r.refuses(err, quota.Exceeded{Class: "x", Owner: "a", Used: 10, Asked: 1, Limit: 10})
}

// Claims that name the same classes in opposite orders do not wait for each other
// (neutron 1486134, 1926787).
func TestNeutronNoDeadlock(t *testing.T) {
	r := newRig(t, class("x", 1000, 1000), class("y", 1000, 1000))
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			list := []quota.Amount{{Class: "x", N: 1}, {Class: "y", N: 1}}
			if i%2 == 0 {
				list[0], list[1] = list[1], list[0]
			}
			for range 20 {
				if _, err := r.Reserve(t.Context(), quota.Ask{Owner: "a", Amounts: list}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r.used("a", "x", 0, 320)
	r.used("a", "y", 0, 320)
}

// refusing fails all writes.
type refusing struct{ quota.Store }

func (refusing) Apply(context.Context, quota.Generation, []quota.Change) error {
	return errors.New("no disk")
}

// A claim that could not be recorded is not charged (Kubernetes 70563, 39599).
func TestKubernetesChargeOfFailedCreate(t *testing.T) {
	r := newRig(t, class("x", 5, 5))
	_, err := quota.New(refusing{r.store}, quota.Options{}).Reserve(t.Context(), quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 5}}})
	if err == nil {
		t.Error("done")
	}
	r.used("a", "x", 0, 0)
	r.mustTake("a", "x", 5)
}

// Two classes of one claim never diverge (Kubernetes 133274, 123434).
func TestKubernetesTwoClassesTogether(t *testing.T) {
	r := newRig(t, class("x", 50, 50), class("y", 50, 50))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				_, _ = r.Reserve(t.Context(), quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}, {Class: "y", N: 1}}})
				_ = r.store.View(t.Context(), func(b quota.Reader) {
					if b.Used("a", "x") != b.Used("a", "y") {
						t.Error("one class without the other")
					}
				})
			}
		})
	}
	wg.Wait()
	r.used("a", "x", 0, 50)
}

// What is created twice under one name is charged once (Kubernetes, same-name creates).
func TestKubernetesSameNameTwice(t *testing.T) {
	r := newRig(t, class("x", 50, 50))
	ask := quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 2}}, Real: "pod"}
	var made, refused atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			switch _, err := r.Claim(t.Context(), ask); {
			case err == nil:
				made.Add(1)
			case errors.Is(err, quota.ErrExists):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 || refused.Load() != 7 {
		t.Errorf("%d made, %d refused", made.Load(), refused.Load())
	}
	r.used("a", "x", 2, 0)
}

// What one ledger was granted counts in another one's next answer: there are no counts
// that follow later (gubernator 208, 212, 216, 218, 219, 225).
func TestGubernatorSeenAtOnce(t *testing.T) {
	r := newRig(t, class("x", 10, 10))
	other := quota.New(r.store, quota.Options{Now: r.clock.Now})
	for n := range int64(10) {
		l := r.Ledger
		if n%2 == 0 {
			l = other
		}
		_, err := l.Reserve(t.Context(), quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}})
		r.is(err, nil)
		_, err = r.take("a", "x", 10-n)
		r.refuses(err, quota.Exceeded{Class: "x", Owner: "a", Used: n + 1, Asked: 10 - n, Limit: 10})
	}
}

// There is no second copy that could drift: after calls that failed, whose answers were
// lost, or that were cut off, usage is the sum over the records (CERN 2015).
func TestCERNNoDrift(t *testing.T) {
	r := newRig(t, class("x", 1000, 1000))
	for i := range 60 {
		l := r.Ledger
		switch i % 3 {
		case 1:
			l = quota.New(refusing{r.store}, quota.Options{Now: r.clock.Now})
		case 2:
			l = quota.New(&losing{Store: r.store}, quota.Options{Now: r.clock.Now})
		}
		c, err := l.Reserve(t.Context(), quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: int64(i + 1)}}, TTL: time.Duration(i+1) * time.Second})
		if err == nil && i%2 == 0 {
			_, _ = l.Release(t.Context(), quota.ByID(c.ID), "")
		}
		r.clock.Jump(time.Second)
	}
	list, err := r.Claims(t.Context(), "")
	r.is(err, nil)
	sum := int64(0)
	for _, c := range list {
		sum += c.Amounts[0].N
	}
	r.used("a", "x", 0, sum)
}

// 0 is zero, and what is unlimited is no number (keystone; oslo.limit).
func TestKeystoneZeroIsZero(t *testing.T) {
	r := newRig(t, class("x", quota.Unlimited, 0))
	_, err := r.take("a", "x", 1)
	r.refuses(err, quota.Exceeded{Class: "x", Owner: "a", Used: 0, Asked: 1, Limit: 0})
	r.owner("top", "")
	r.owner("u", "top")
	r.limit("top", "x", quota.Unlimited)
	r.limit("u", "x", 3)
	r.mustTake("u", "x", 3)
	r.is(r.SetLimit(t.Context(), quota.OwnerLimit{Owner: "a", Class: "x", Limit: -2}), quota.ErrInvalid)
	if quota.Unlimited.String() != "unlimited" || quota.Limit(0).String() != "0" {
		t.Error("words")
	}
}
