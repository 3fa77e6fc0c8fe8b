package quota_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/quota"
)

// proves G24: a reservation lasts as long as was asked, and less than a millisecond
// more; at its time it is over.
func TestReservationLastsItsTime(t *testing.T) {
	for _, ttl := range []time.Duration{1, time.Microsecond, time.Millisecond, time.Millisecond + 1, time.Second, quota.MaxTTL} {
		for _, since := range []time.Duration{0, 1, 999_999, 123_456} {
			r := newRig(t, class("x", 10, 10))
			r.clock.Jump(since)
			begin := r.clock.Now()
			c, err := r.Reserve(t.Context(), quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}, TTL: ttl})
			r.is(err, nil)
			if d := c.Expires.Sub(begin); d < ttl || d >= ttl+time.Millisecond || c.Expires.Nanosecond()%1e6 != 0 {
				t.Errorf("for %v, %v after a millisecond: it lasts %v", ttl, since, d)
			}
			r.clock.Jump(ttl - 1)
			if list, err := r.Expire(t.Context()); err != nil || len(list) > 0 {
				t.Errorf("for %v: over before its time, %v", ttl, err)
			}
			r.clock.Jump(c.Expires.Sub(r.clock.Now()))
			if list, err := r.Expire(t.Context()); err != nil || len(list) != 1 {
				t.Errorf("for %v: not over at its time, %v", ttl, err)
			}
		}
	}
	r := newRig(t, class("x", 10, 10))
	for _, ttl := range []time.Duration{-1, quota.MaxTTL + 1} {
		_, err := r.Reserve(t.Context(), quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}, TTL: ttl})
		r.is(err, quota.ErrInvalid)
	}
}

// proves G24: a request is the same from a ledger with another default time.
func TestRequestFromAnotherLedger(t *testing.T) {
	r := newRig(t, class("x", 10, 10))
	ask := quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}, Request: "r"}
	c, err := r.Reserve(t.Context(), ask)
	r.is(err, nil)
	again, err := quota.New(r.store, quota.Options{Now: r.clock.Now, TTL: time.Minute}).Reserve(t.Context(), ask)
	r.is(err, nil)
	if again == nil || again.ID != c.ID {
		t.Errorf("%v, want %v", again, c)
	}
	r.used("a", "x", 0, 1)
}

// proves G24: transfer takes all below with it that has the same owner, however many
// classes that is, and nothing of others.
func TestTransferOfManyClasses(t *testing.T) {
	ctx := t.Context()
	r := newRig(t)
	root := quota.ID(0)
	for i := range 2*quota.MaxAmounts + 1 {
		name := fmt.Sprint("c", i)
		r.is(r.Define(ctx, class(name, 10, 1)), nil)
		c, err := r.Reserve(ctx, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: name, N: 1}}, Parent: root})
		r.is(err, nil)
		if root == 0 {
			root = c.ID
		}
	}
	_, err := r.Reserve(ctx, quota.Ask{Owner: "other", Amounts: []quota.Amount{{Class: "c0", N: 1}}, Parent: root})
	r.is(err, nil)
	_, err = r.Transfer(ctx, quota.ByID(root), "b", "")
	r.is(err, nil)
	r.used("b", "c0", 0, 1)
	r.used("b", "c128", 0, 1)
	r.used("a", "c128", 0, 0)
	r.used("other", "c0", 0, 1)
}

// measured looks at what a ledger writes.
type measured struct {
	quota.Store
	most int
}

func (m *measured) Apply(ctx context.Context, g quota.Generation, changes []quota.Change) error {
	m.most = max(m.most, len(changes))
	return m.Store.Apply(ctx, g, changes)
}

// crowd fills a store with more reservations than one change ends; those after the
// first lie below it, or not.
func crowd(t *testing.T, r *rig, below bool) {
	t.Helper()
	changes := []quota.Change{quota.PutOwner{Owner: quota.Owner{Name: "a"}}}
	for i := range quota.MaxSubtree + 10 {
		parent, ends := quota.ID(0), r.clock.Now()
		if below {
			ends = ends.Add(time.Hour)
		}
		if below && i > 0 {
			parent = quota.ID(1 + (i-1)/2)
		}
		changes = append(changes, quota.PutClaim{Claim: &quota.Claim{
			ID: quota.ID(i + 1), Parent: parent, Owner: "a", State: quota.Reserved, Expires: ends, Amounts: []quota.Amount{{Class: "x", N: 1}},
		}})
	}
	var g quota.Generation
	_ = r.store.View(t.Context(), func(b quota.Reader) { g = b.Generation() })
	r.is(r.store.Apply(t.Context(), g, changes), nil)
}

// However many reservations end at once, no change is larger than a store has to take.
func TestManyExpireAtOnce(t *testing.T) {
	r := newRig(t, class("x", quota.Unlimited, quota.Unlimited))
	crowd(t, r, false)
	m := &measured{Store: r.store}
	l := quota.New(m, quota.Options{Now: r.clock.Now})
	if list, err := l.Expire(t.Context()); err != nil || len(list) != quota.MaxSubtree+10 {
		t.Errorf("%d expired, %v", len(list), err)
	}
	if m.most > quota.MaxSubtree {
		t.Errorf("%d changes at once", m.most)
	}
}

// stopping takes so many writes and no more.
type stopping struct {
	quota.Store
	left int
}

func (s *stopping) Apply(ctx context.Context, g quota.Generation, changes []quota.Change) error {
	if s.left--; s.left < 0 {
		return errors.New("no disk")
	}
	return s.Store.Apply(ctx, g, changes)
}

// proves G24: a release takes the whole subtree, however large, in steps that a store
// takes, those below first; one that was cut off goes on when it is repeated.
func TestReleaseOfManyClaims(t *testing.T) {
	r := newRig(t, class("x", quota.Unlimited, quota.Unlimited))
	crowd(t, r, true)
	m := &measured{Store: r.store}
	s := &stopping{Store: m, left: 1}
	l := quota.New(s, quota.Options{Now: r.clock.Now})
	if _, err := l.Transfer(t.Context(), quota.ByID(1), "b", ""); !errors.Is(err, quota.ErrInvalid) {
		t.Errorf("transfer: %v", err)
	}
	first, err := l.Release(t.Context(), quota.ByID(1), "end")
	if err == nil || len(first) != quota.MaxSubtree || first[0].ID != quota.MaxSubtree+10 {
		t.Fatalf("%d released, %v", len(first), err)
	}
	s.left = 1
	rest, err := l.Release(t.Context(), quota.ByID(1), "end")
	if err != nil || len(rest) != 10 || rest[9].ID != 1 {
		t.Fatalf("%d released, %v", len(rest), err)
	}
	if again, err := l.Release(t.Context(), quota.ByID(1), "end"); err == nil || again != nil {
		t.Errorf("without a disk: %v, %v", again, err)
	}
	s.left = 1
	if again, err := l.Release(t.Context(), quota.ByID(1), "end"); err != nil || again != nil {
		t.Errorf("again: %v, %v", again, err)
	}
	r.used("", "x", 0, 0)
	if m.most > quota.MaxSubtree {
		t.Errorf("%d changes at once", m.most)
	}
}

// A call that fails returns nothing that was not done.
func TestFailedCallsReturnNothing(t *testing.T) {
	r := newRig(t, class("x", 5, 5))
	c := r.mustTake("a", "x", 1)
	r.clock.Jump(2 * time.Hour)
	l := quota.New(refusing{r.store}, quota.Options{Now: r.clock.Now})
	if list, err := l.Release(t.Context(), quota.ByID(c.ID), ""); err == nil || list != nil {
		t.Errorf("release: %v, %v", list, err)
	}
	if list, err := l.Expire(t.Context()); err == nil || list != nil {
		t.Errorf("expire: %v, %v", list, err)
	}
}

// small has room for so many claims.
type small struct {
	quota.Store
	room int
}

func (s *small) Apply(ctx context.Context, g quota.Generation, changes []quota.Change) error {
	n := 0
	for _, c := range changes {
		switch c.(type) {
		case quota.PutClaim:
			n++
		case quota.DropClaim:
			n--
		}
	}
	claims := 0
	_ = s.View(ctx, func(r quota.Reader) { claims = len(r.Claims()) })
	if n > 0 && claims+n > s.room {
		return quota.ErrFull
	}
	return s.Store.Apply(ctx, g, changes)
}

// proves G23: who finds no room in the store, as who finds none under a limit, ends
// what has expired first.
func TestFullOfWhatHasExpired(t *testing.T) {
	r := newRig(t, class("x", 100, 100))
	l := quota.New(&small{Store: r.store, room: 3}, quota.Options{Now: r.clock.Now})
	ask := quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}, TTL: time.Minute}
	for range 2 {
		for range 3 {
			_, err := l.Reserve(t.Context(), ask)
			r.is(err, nil)
		}
		_, err := l.Reserve(t.Context(), ask)
		r.is(err, quota.ErrFull)
		r.clock.Jump(time.Minute)
	}
	_, err := l.Reserve(t.Context(), ask)
	r.is(err, nil)
	r.used("a", "x", 0, 1)
}

// proves G21: owners are as deep as MaxDepth says, and one deeper is refused; their
// names are any printable text.
func TestDepthOfOwners(t *testing.T) {
	r := newRig(t, class("x", 100, 100))
	above := ""
	for i := range quota.MaxDepth - 1 {
		name := fmt.Sprint("o", i)
		r.owner(name, above)
		above = name
	}
	r.is(r.AddOwner(t.Context(), quota.Owner{Name: "deeper", Parent: above}), quota.ErrInvalid)
	for _, good := range []string{"a b", "a=b", "a,b", "a/b", strings.Repeat("n", quota.MaxName)} {
		r.owner(good, "")
		r.limit(good, "x", 1)
		r.mustTake(good, "x", 1)
	}
	for _, bad := range []string{"", "a\n", "a\x00", "\xff", strings.Repeat("n", quota.MaxName+1)} {
		r.is(r.AddOwner(t.Context(), quota.Owner{Name: bad}), quota.ErrInvalid)
		_, err := r.take(bad, "x", 1)
		r.is(err, quota.ErrInvalid)
		r.is(r.SetLimit(t.Context(), quota.OwnerLimit{Owner: bad, Class: "x", Limit: 1}), quota.ErrInvalid)
	}
	r.is(r.AddOwner(t.Context(), quota.Owner{Name: "self", Parent: "self"}), quota.ErrNotFound)
	r.mustTake(above, "x", 1)
	r.used("o0", "x", 0, 1)
}

// proves G25: a default that is lowered tells of each owner that has no limit of its
// own and is over it, at each level; one that is raised of none.
func TestLoweredDefault(t *testing.T) {
	ctx := t.Context()
	r := newRig(t, class("x", 100, quota.Unlimited))
	r.owner("top", "")
	r.owner("a", "top")
	r.owner("own", "top")
	r.owner("fits", "")
	r.mustTake("a", "x", 5)
	r.mustTake("own", "x", 6)
	r.mustTake("fits", "x", 4)
	r.limit("own", "x", 50)
	r.overs = nil
	r.is(r.Define(ctx, class("x", 15, 4)), nil)
	want := []quota.Over{{Class: "x", Owner: "a", Used: 5, Limit: 4}, {Class: "x", Owner: "top", Used: 11, Limit: 4}}
	if fmt.Sprint(r.overs) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", r.overs, want)
	}
	r.overs = nil
	r.is(r.Define(ctx, class("x", quota.Unlimited, 6)), nil)
	if len(r.overs) != 0 {
		t.Errorf("raised: %v", r.overs)
	}
}

// losing loses the answer to a write.
type losing struct {
	quota.Store
	lost bool
}

func (s *losing) Apply(ctx context.Context, g quota.Generation, changes []quota.Change) error {
	err := s.Store.Apply(ctx, g, changes)
	if s.lost || err != nil {
		return err
	}
	s.lost = true
	return quota.ErrUnknown
}

// proves G25: a limit that was lowered with an unknown outcome tells of who is over it
// when the call is repeated: that it was done already does not hide it.
func TestOverAfterUnknownOutcome(t *testing.T) {
	ctx := t.Context()
	for name, call := range map[string]func(l *quota.Ledger) error{
		"set": func(l *quota.Ledger) error {
			return l.SetLimit(ctx, quota.OwnerLimit{Owner: "a", Class: "x", Limit: 4})
		},
		"unset":  func(l *quota.Ledger) error { return l.UnsetLimit(ctx, "own", "x") },
		"define": func(l *quota.Ledger) error { return l.Define(ctx, class("x", 100, 4)) },
	} {
		r := newRig(t, class("x", 100, 4))
		r.limit("own", "x", 50)
		r.limit("a", "x", 50)
		r.mustTake("own", "x", 5)
		r.mustTake("a", "x", 5)
		owner := "own"
		switch name {
		case "set":
			owner = "a"
		case "define":
			r.is(r.UnsetLimit(ctx, "own", "x"), nil)
			r.is(r.Define(ctx, class("x", 100, 50)), nil)
		}
		var overs []quota.Over
		l := quota.New(&losing{Store: r.store}, quota.Options{OnOver: func(o quota.Over) { overs = append(overs, o) }})
		if err := call(l); !errors.Is(err, quota.ErrUnknown) || len(overs) != 0 {
			t.Errorf("%s: %v, told of %v", name, err, overs)
		}
		if err := call(l); err != nil && !errors.Is(err, quota.ErrNotFound) {
			t.Errorf("%s again: %v", name, err)
		}
		if len(overs) != 1 || overs[0] != (quota.Over{Class: "x", Owner: owner, Used: 5, Limit: 4}) {
			t.Errorf("%s: told of %v", name, overs)
		}
	}
}

// proves G24: shrinking is not refused by a maximum that came after the claim.
func TestShrinkOverMax(t *testing.T) {
	ctx := t.Context()
	c := class("x", 100, 100)
	r := newRig(t, c)
	big := r.mustTake("a", "x", 50)
	c.Max = 10
	r.is(r.Define(ctx, c), nil)
	for _, n := range []int64{50, 40, 11, 10} {
		_, err := r.Resize(ctx, quota.ByID(big.ID), []quota.Amount{{Class: "x", N: n}}, "")
		r.is(err, nil)
	}
	_, err := r.Resize(ctx, quota.ByID(big.ID), []quota.Amount{{Class: "x", N: 11}}, "")
	r.is(err, quota.ErrInvalid)
	r.used("a", "x", 0, 10)
}

// Whose context has ended is told so, and nothing was done.
func TestEndedContext(t *testing.T) {
	r := newRig(t, class("x", 5, 5))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Reserve(ctx, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}})
	if !errors.Is(err, context.Canceled) || errors.Is(err, quota.ErrUnknown) {
		t.Error(err)
	}
	r.used("a", "x", 0, 0)
}
