package quotatest

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

// Store is a store with a look at its books.
type Store struct {
	quota.Store
	// Verify says whether what the store keeps in memory is what its records say; nil:
	// it keeps nothing.
	Verify func() error
}

// Clock is a clock that a test sets.
type Clock struct{ ns atomic.Int64 }

// NewClock returns a clock that stands at some moment.
func NewClock() *Clock {
	c := &Clock{}
	c.ns.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	return c
}

// Now returns its time.
func (c *Clock) Now() time.Time { return time.Unix(0, c.ns.Load()).UTC() }

// Jump moves it, ahead or back.
func (c *Clock) Jump(d time.Duration) { c.ns.Add(int64(d)) }

// Run runs the suite. open makes an empty store, for a test that ends.
func Run(t *testing.T, open func(testing.TB) Store) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(*testing.T, func(testing.TB) Store)
	}{
		{"generation", testGeneration},
		{"story", testStory},
		{"names", testNames},
		{"model", testModel},
		{"race for the last", testRace},
		{"expiry races provision", testExpiryRace},
		{"clock jumps", testClockJumps},
		{"failures at every write", testFailures},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open) })
	}
}

// testGeneration: proves G23, a write on an old view changes nothing.
func testGeneration(t *testing.T, open func(testing.TB) Store) {
	ctx, s := t.Context(), open(t)
	view := func() (g quota.Generation, classes int) {
		t.Helper()
		if err := s.View(ctx, func(r quota.Reader) { g, classes = r.Generation(), len(r.Classes()) }); err != nil {
			t.Fatal(err)
		}
		return g, classes
	}
	old, _ := view()
	if err := s.Apply(ctx, old, []quota.Change{quota.PutClass{Class: quota.NewClass("a", quota.Count)}}); err != nil {
		t.Fatal(err)
	}
	g, n := view()
	if n != 1 || g <= old {
		t.Fatalf("%d classes, generation %d after %d", n, g, old)
	}
	err := s.Apply(ctx, old, []quota.Change{quota.PutClass{Class: quota.NewClass("b", quota.Count)}})
	if !errors.Is(err, quota.ErrConflict) {
		t.Errorf("a write on an old view: %v", err)
	}
	if g2, n := view(); n != 1 || g2 != g {
		t.Errorf("after it %d classes, generation %d, was %d", n, g2, g)
	}
	if err := s.Apply(ctx, g, nil); err != nil {
		t.Errorf("no changes: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Apply(ended, g, []quota.Change{quota.PutClass{Class: quota.NewClass("c", quota.Count)}}); err == nil {
		t.Error("a context that has ended: done")
	}
}

func must(t interface {
	Helper()
	Fatal(args ...any)
}, s *Store,
) {
	t.Helper()
	if s.Verify != nil {
		if err := s.Verify(); err != nil {
			t.Fatal(err)
		}
	}
}

// sums adds up the claims of the owner and of all below it, from the records.
func sums(ctx context.Context, s quota.Store, owner, class string) (sum quota.Sum, err error) {
	err = s.View(ctx, func(r quota.Reader) {
		sum = quota.Sum{}
		for _, c := range r.Claims() {
			if !below(r, c.Owner, owner) {
				continue
			}
			for _, a := range c.Amounts {
				switch {
				case a.Class != class:
				case c.State == quota.Held:
					sum.Held += a.N
				default:
					sum.Reserved += a.N
				}
			}
		}
	})
	return sum, err
}

func below(r quota.Reader, owner, top string) bool {
	for ; owner != top; owner = parent(r, owner) {
		if owner == "" {
			return false
		}
	}
	return true
}

func parent(r quota.Reader, owner string) string {
	o, _ := r.Owner(owner)
	return o.Parent
}

// watched says at every write whether a limit was passed.
type watched struct {
	quota.Store
	bad atomic.Pointer[string]
}

func (w *watched) Apply(ctx context.Context, g quota.Generation, changes []quota.Change) error {
	err := w.Store.Apply(ctx, g, changes)
	if err == nil {
		err = w.View(ctx, func(r quota.Reader) {
			for _, l := range r.Limits() {
				if u := r.Used(l.Owner, l.Class).Total(); l.Limit != quota.Unlimited && u > int64(l.Limit) {
					text := fmt.Sprintf("%s of %s: %d over the limit %v", l.Class, l.Owner, u, l.Limit)
					w.bad.Store(&text)
				}
			}
		})
	}
	return err
}

// testRace: proves G23. Claimants race for less than they want: the limit is reached
// and never passed, of the owner and of the one above.
func testRace(t *testing.T, open func(testing.TB) Store) {
	const claimants, each, limit = 16, 10, 100
	ctx, s := t.Context(), open(t)
	w := &watched{Store: s.Store}
	l := quota.New(w, quota.Options{})
	define(t, l, "x", quota.Unlimited)
	for _, o := range []quota.Owner{{Name: "top"}, {Name: "a", Parent: "top"}, {Name: "b", Parent: "top"}} {
		if err := l.AddOwner(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.SetLimit(ctx, quota.OwnerLimit{Owner: "top", Class: "x", Limit: limit}); err != nil {
		t.Fatal(err)
	}
	var got, refused atomic.Int64
	var wg sync.WaitGroup
	for i := range claimants {
		wg.Go(func() {
			owner := string(rune('a' + i%2))
			for range each {
				_, err := l.Reserve(ctx, quota.Ask{Owner: owner, Amounts: []quota.Amount{{Class: "x", N: 1}}})
				var e *quota.Exceeded
				switch {
				case err == nil:
					got.Add(1)
				case errors.As(err, &e) && e.Owner == "top" && e.Used == limit && e.Limit == limit && e.Asked == 1:
					refused.Add(1)
				default:
					t.Errorf("claim: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if got.Load() != limit || refused.Load() != claimants*each-limit {
		t.Errorf("%d got one and %d were refused, of %d under a limit of %d", got.Load(), refused.Load(), claimants*each, limit)
	}
	if text := w.bad.Load(); text != nil {
		t.Error(*text)
	}
	if sum, err := sums(ctx, s, "top", "x"); err != nil || sum.Total() != limit {
		t.Errorf("the records add up to %+v, %v", sum, err)
	}
	must(t, &s)
}

// testExpiryRace: proves G24, expire and provision cannot both win (the race of commit
// and expiry that cinder's reservations have).
func testExpiryRace(t *testing.T, open func(testing.TB) Store) {
	ctx, s, clock := t.Context(), open(t), NewClock()
	l := quota.New(s, quota.Options{Now: clock.Now})
	define(t, l, "x", quota.Unlimited)
	held := int64(0)
	for i := range 32 {
		c, err := l.Reserve(ctx, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}, TTL: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var provisioned error
		var ended atomic.Int64
		wg.Go(func() { clock.Jump(2 * time.Second) })
		wg.Go(func() { _, provisioned = l.Provision(ctx, c.ID, fmt.Sprint("real-", i), "") })
		for range 2 {
			wg.Go(func() {
				list, err := l.Expire(ctx)
				if err != nil {
					t.Error(err)
				}
				ended.Add(int64(len(list)))
			})
		}
		wg.Wait()
		list, err := l.Expire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		ended.Add(int64(len(list)))
		if provisioned == nil {
			held++
		} else if !errors.Is(provisioned, quota.ErrExpired) && !errors.Is(provisioned, quota.ErrNotFound) {
			t.Errorf("provision: %v", provisioned)
		}
		if won := provisioned == nil; won == (ended.Load() == 1) || ended.Load() > 1 {
			t.Fatalf("round %d: provision %v, and %d expired", i, provisioned, ended.Load())
		}
		if sum, err := sums(ctx, s, "a", "x"); err != nil || sum != (quota.Sum{Held: held}) {
			t.Fatalf("round %d: %+v, %v; want %d held", i, sum, err, held)
		}
	}
	must(t, &s)
}

// testClockJumps: proves G24 whatever the clock does.
func testClockJumps(t *testing.T, open func(testing.TB) Store) {
	ctx, s, clock := t.Context(), open(t), NewClock()
	l := quota.New(s, quota.Options{Now: clock.Now})
	define(t, l, "x", 3)
	reserve := func(ttl time.Duration) (quota.ID, error) {
		c, err := l.Reserve(ctx, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}, TTL: ttl})
		if err != nil {
			return 0, err
		}
		return c.ID, nil
	}
	short, err := reserve(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	long, err := reserve(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	clock.Jump(-24 * time.Hour) // nothing ends for a day
	if list, err := l.Expire(ctx); err != nil || len(list) != 0 {
		t.Errorf("%d expired after a jump back, %v", len(list), err)
	}
	clock.Jump(24*time.Hour + 2*time.Minute)
	if _, err := l.Provision(ctx, short, "s", ""); !errors.Is(err, quota.ErrExpired) {
		t.Errorf("provision of what is over: %v", err)
	}
	// It is over, but not swept: whoever needs the room has it.
	for range 2 {
		if _, err := reserve(time.Hour); err != nil {
			t.Errorf("the room of what is over: %v", err)
		}
	}
	if _, err := reserve(time.Hour); !errors.Is(err, quota.ErrExceeded) {
		t.Errorf("the fourth of three: %v", err)
	}
	clock.Jump(100 * 365 * 24 * time.Hour)
	if list, err := l.Expire(ctx); err != nil || len(list) != 3 {
		t.Errorf("%d expired after a jump ahead, %v", len(list), err)
	}
	if _, err := l.Get(ctx, quota.ByID(long)); !errors.Is(err, quota.ErrNotFound) {
		t.Errorf("what expired: %v", err)
	}
	clock.Jump(-100 * 365 * 24 * time.Hour) // nothing comes back
	if sum, err := sums(ctx, s, "a", "x"); err != nil || sum != (quota.Sum{}) {
		t.Errorf("%+v, %v", sum, err)
	}
	must(t, &s)
}

func sameError(err, want error) bool { return errors.Is(err, want) && (err == nil) == (want == nil) }

func define(t testing.TB, l *quota.Ledger, class string, byDefault quota.Limit) {
	t.Helper()
	c := quota.NewClass(class, quota.Count)
	c.Default = byDefault
	if err := l.Define(context.Background(), c); err != nil {
		t.Fatal(err)
	}
}
