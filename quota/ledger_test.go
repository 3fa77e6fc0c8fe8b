package quota_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/quota"
)

// proves G20
func TestClassMinMaxStep(t *testing.T) {
	c := class("x", quota.Unlimited, quota.Unlimited)
	c.Min, c.Max, c.Step = 4, 12, 2
	r := newRig(t, c)
	for n, ok := range map[int64]bool{0: false, 2: false, 3: false, 4: true, 5: false, 12: true, 13: false, 14: false} {
		_, err := r.take("a", "x", n)
		if (err == nil) != ok {
			t.Errorf("a claim of %d: %v", n, err)
		}
		if !ok {
			r.is(err, quota.ErrInvalid)
		}
	}
	_, err := r.take("a", "y", 1)
	r.is(err, quota.ErrNotFound)
	_, err = r.take("a", "x", -4)
	r.is(err, quota.ErrInvalid)
	r.used("a", "x", 0, 16)
	for _, bad := range []quota.Class{
		{Name: "", Min: 1, Step: 1},
		{Name: "a b", Min: 1, Step: 1},
		{Name: "z", Min: 0, Step: 1},
		{Name: "z", Min: 1, Step: 0},
		{Name: "z", Min: 1, Step: 1, Total: -2},
		{Name: "z", Min: 5, Step: 1, Max: 4},
		{Name: "z", Min: 1, Step: 1, Unit: 7},
	} {
		r.is(r.Define(t.Context(), bad), quota.ErrInvalid)
	}
	r.is(r.RemoveClass(t.Context(), "x"), quota.ErrInUse)
	r.is(r.RemoveClass(t.Context(), "y"), quota.ErrNotFound)
	bytes := class("x", 1, 1)
	bytes.Unit = quota.Bytes
	r.is(r.Define(t.Context(), bytes), quota.ErrInvalid)
}

// proves G20: what is recorded elsewhere is not claimed here.
func TestExternalClass(t *testing.T) {
	c := class("built.in", 10, 5)
	c.External = true
	r := newRig(t, c, class("x", 1, 1))
	_, err := r.Reserve(t.Context(), quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}, {Class: "built.in", N: 1}}})
	r.is(err, quota.ErrInvalid)
	r.is(r.RemoveClass(t.Context(), "built.in"), quota.ErrInvalid)
	r.used("", "x", 0, 0)
}

// proves G21
func TestLimitsOfAncestors(t *testing.T) {
	r := newRig(t, class("x", 100, 10))
	r.owner("project", "")
	r.owner("sub", "project")
	r.owner("user", "sub")
	r.owner("other", "project")
	r.limit("project", "x", 12)
	r.mustTake("user", "x", 8)
	r.used("sub", "x", 0, 8)
	r.used("project", "x", 0, 8)
	_, err := r.take("other", "x", 5)
	r.refuses(err, quota.Exceeded{Class: "x", Owner: "project", Used: 8, Asked: 5, Limit: 12})
	_, err = r.take("user", "x", 3)
	r.refuses(err, quota.Exceeded{Class: "x", Owner: "user", Used: 8, Asked: 3, Limit: 10})
	r.limit("user", "x", quota.Unlimited)
	r.limit("sub", "x", quota.Unlimited)
	r.mustTake("user", "x", 4)
	r.limit("other", "x", 0)
	_, err = r.take("other", "x", 1)
	r.refuses(err, quota.Exceeded{Class: "x", Owner: "other", Used: 0, Asked: 1, Limit: 0})
	r.is(r.UnsetLimit(t.Context(), "project", "x"), nil)
	r.is(r.UnsetLimit(t.Context(), "project", "x"), quota.ErrNotFound)
	r.limit("project", "x", quota.Unlimited)
	_, err = r.take("user", "x", 89)
	r.refuses(err, quota.Exceeded{Class: "x", Owner: "", Used: 12, Asked: 89, Limit: 100})
	r.is(r.AddOwner(t.Context(), quota.Owner{Name: "user"}), quota.ErrExists)
	r.is(r.AddOwner(t.Context(), quota.Owner{Name: "u", Parent: "nobody"}), quota.ErrNotFound)
}

// proves G22: the sums are what the records add up to, and there is nothing else.
func TestUsageIsTheSum(t *testing.T) {
	r := newRig(t, class("x", quota.Unlimited, quota.Unlimited))
	a, b := r.mustTake("a", "x", 3), r.mustTake("a", "x", 4)
	if _, err := r.Provision(t.Context(), a.ID, "one", ""); err != nil {
		t.Fatal(err)
	}
	r.used("a", "x", 3, 4)
	if _, err := r.Release(t.Context(), quota.ByID(b.ID), ""); err != nil {
		t.Fatal(err)
	}
	list, err := r.Usage(t.Context(), "a")
	if err != nil || len(list) != 1 || list[0].Sum != (quota.Sum{Held: 3}) || list[0].Limit != quota.Unlimited || list[0].Origin != quota.FromDefault {
		t.Errorf("%+v, %v", list, err)
	}
	list, err = r.Usage(t.Context(), "nobody")
	if err != nil || len(list) != 1 || list[0].Sum.Total() != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := r.Usage(t.Context(), ""); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}

// proves G23
func TestAllOrNothing(t *testing.T) {
	r := newRig(t, class("x", 10, 10), class("y", 1, 1), class("z", 10, 10))
	ask := quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "z", N: 2}, {Class: "y", N: 2}, {Class: "x", N: 2}}}
	_, err := r.Reserve(t.Context(), ask)
	r.refuses(err, quota.Exceeded{Class: "y", Owner: "a", Used: 0, Asked: 2, Limit: 1})
	for _, c := range []string{"x", "y", "z"} {
		r.used("", c, 0, 0)
	}
	ask.Amounts[1].N = 1
	if _, err := r.Reserve(t.Context(), ask); err != nil {
		t.Error(err)
	}
	_, err = r.Reserve(t.Context(), quota.Ask{Owner: "a"})
	r.is(err, quota.ErrInvalid)
}

// proves G24
func TestProvision(t *testing.T) {
	r := newRig(t, class("x", 10, 10))
	c, d := r.mustTake("a", "x", 1), r.mustTake("a", "x", 1)
	_, err := r.Provision(t.Context(), c.ID, "real", "")
	r.is(err, nil)
	_, err = r.Provision(t.Context(), c.ID, "real", "")
	r.is(err, nil)
	_, err = r.Provision(t.Context(), c.ID, "else", "")
	r.is(err, quota.ErrState)
	_, err = r.Provision(t.Context(), d.ID, "real", "")
	r.is(err, quota.ErrExists)
	_, err = r.Provision(t.Context(), d.ID, d.ID.String(), "")
	r.is(err, quota.ErrInvalid)
	_, err = r.Provision(t.Context(), 99, "real", "")
	r.is(err, quota.ErrNotFound)
	r.clock.Jump(2 * time.Hour)
	_, err = r.Provision(t.Context(), d.ID, "late", "")
	r.is(err, quota.ErrExpired)
	list, err := r.Expire(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != d.ID {
		t.Errorf("expired %v, %v", list, err)
	}
	r.used("a", "x", 1, 0)
}

// proves G24: what is held below keeps what is above.
func TestExpireOfATree(t *testing.T) {
	ctx := t.Context()
	r := newRig(t, class("x", 10, 10))
	root := r.mustTake("a", "x", 1)
	one := []quota.Amount{{Class: "x", N: 1}}
	child, err := r.Reserve(ctx, quota.Ask{Owner: "a", Amounts: one, Parent: root.ID, TTL: 3 * time.Hour})
	r.is(err, nil)
	r.clock.Jump(2 * time.Hour) // the root's time is over, the child's is not
	if list, err := r.Expire(ctx); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	_, err = r.Provision(ctx, child.ID, "child", "")
	r.is(err, nil)
	r.clock.Jump(24 * time.Hour)
	if list, err := r.Expire(ctx); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	_, err = r.Provision(ctx, root.ID, "root", "")
	r.is(err, nil)
	other := r.mustTake("a", "x", 1)
	_, err = r.Reserve(ctx, quota.Ask{Owner: "a", Amounts: one, Parent: other.ID})
	r.is(err, nil)
	r.clock.Jump(2 * time.Hour)
	_, err = r.Reserve(ctx, quota.Ask{Owner: "a", Amounts: one, Parent: other.ID})
	r.is(err, quota.ErrExpired)
	if list, err := r.Expire(ctx); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	_, err = r.Reserve(ctx, quota.Ask{Owner: "a", Amounts: one, Parent: other.ID})
	r.is(err, quota.ErrNotFound)
}

// proves G24
func TestTransfer(t *testing.T) {
	ctx := t.Context()
	r := newRig(t, class("x", 10, 4))
	r.owner("top", "")
	r.owner("a", "top")
	r.owner("b", "top")
	r.limit("top", "x", 6)
	c := r.mustTake("a", "x", 4)
	r.mustTake("b", "x", 2)
	r.limit("top", "x", 1) // over it, but nothing about that changes
	_, err := r.Transfer(ctx, quota.ByID(c.ID), "b", "")
	r.refuses(err, quota.Exceeded{Class: "x", Owner: "b", Used: 2, Asked: 4, Limit: 4})
	r.limit("b", "x", 6)
	got, err := r.Transfer(ctx, quota.ByID(c.ID), "b", "")
	if err != nil || got.Owner != "b" {
		t.Errorf("%+v, %v", got, err)
	}
	r.used("b", "x", 0, 6)
	r.used("a", "x", 0, 0)
	r.used("top", "x", 0, 6)
	_, err = r.Transfer(ctx, quota.ByID(c.ID), "outside", "")
	r.is(err, nil)
	r.used("top", "x", 0, 2)
	_, err = r.Transfer(ctx, quota.ByID(c.ID), "a", "")
	r.refuses(err, quota.Exceeded{Class: "x", Owner: "top", Used: 2, Asked: 4, Limit: 1})
}

// proves G24: each call is done once under its request id.
func TestRequests(t *testing.T) {
	ctx := t.Context()
	r := newRig(t, class("x", 100, 100))
	ask := quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 5}}, Request: "r1"}
	c, err := r.Reserve(ctx, ask)
	r.is(err, nil)
	again, err := r.Reserve(ctx, ask)
	if err != nil || again.ID != c.ID {
		t.Errorf("%v, %v; want %v", again, err, c)
	}
	other := ask
	other.Amounts = []quota.Amount{{Class: "x", N: 6}}
	_, err = r.Reserve(ctx, other)
	r.is(err, quota.ErrInvalid)
	_, err = r.Resize(ctx, quota.ByID(c.ID), []quota.Amount{{Class: "x", N: 7}}, "r2")
	r.is(err, nil)
	_, err = r.Resize(ctx, quota.ByID(c.ID), []quota.Amount{{Class: "x", N: 9}}, "r3")
	r.is(err, nil)
	_, err = r.Resize(ctx, quota.ByID(c.ID), []quota.Amount{{Class: "x", N: 7}}, "r2") // late
	r.is(err, nil)
	r.used("a", "x", 0, 9)
	for range 2 {
		_, err = r.Release(ctx, quota.ByID(c.ID), "r4")
		r.is(err, nil)
	}
	_, err = r.Release(ctx, quota.ByID(c.ID), "")
	r.is(err, quota.ErrNotFound)
	_, err = r.Reserve(ctx, ask)
	r.is(err, quota.ErrNotFound)
	r.used("a", "x", 0, 0)
}

// Request ids are remembered up to a bound.
func TestRequestsAreBounded(t *testing.T) {
	ctx := t.Context()
	r := newRig(t, class("x", 100, 100))
	c := r.mustTake("a", "x", 1)
	for i := range 3 * quota.MaxRequests {
		var err error
		if c, err = r.Resize(ctx, quota.ByID(c.ID), []quota.Amount{{Class: "x", N: int64(i%2 + 1)}}, strings.Repeat("r", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.Requests) != quota.MaxRequests || c.Requests[0].ID != "r" {
		t.Errorf("%d requests, the first %q", len(c.Requests), c.Requests[0].ID)
	}
	b := quota.NewBooks()
	for i := range quota.MaxEnded + 100 {
		b.Remember(quota.ID(i), quota.Request{ID: time.Duration(i).String()})
	}
	if n := len(b.Ended()); n != quota.MaxEnded {
		t.Errorf("%d ended ones are remembered", n)
	}
}

// proves G25
func TestLoweredLimit(t *testing.T) {
	ctx := t.Context()
	r := newRig(t, class("x", 100, 10))
	c := r.mustTake("a", "x", 8)
	r.mustTake("b", "x", 2)
	r.limit("a", "x", 5)
	r.limit("b", "x", 2)
	if len(r.overs) != 1 || r.overs[0] != (quota.Over{Class: "x", Owner: "a", Used: 8, Limit: 5}) || r.overs[0].By() != 3 {
		t.Errorf("%+v", r.overs)
	}
	_, err := r.take("a", "x", 1)
	r.refuses(err, quota.Exceeded{Class: "x", Owner: "a", Used: 8, Asked: 1, Limit: 5})
	_, err = r.Resize(ctx, quota.ByID(c.ID), []quota.Amount{{Class: "x", N: 9}}, "")
	r.refuses(err, quota.Exceeded{Class: "x", Owner: "a", Used: 8, Asked: 1, Limit: 5})
	_, err = r.Resize(ctx, quota.ByID(c.ID), []quota.Amount{{Class: "x", N: 7}}, "") // still over
	r.is(err, nil)
	r.used("a", "x", 0, 7)
	_, err = r.Provision(ctx, c.ID, "real", "")
	r.is(err, nil)
	r.limit("b", "x", quota.Unlimited)
	r.overs = nil
	r.is(r.Define(ctx, class("x", 8, 1)), nil)
	want := quota.Over{Class: "x", Used: 9, Limit: 8}
	if len(r.overs) != 1 || r.overs[0] != want {
		t.Errorf("%+v, want %+v", r.overs, want)
	}
	r.overs = nil
	r.is(r.UnsetLimit(ctx, "b", "x"), nil)
	if want := (quota.Over{Class: "x", Owner: "b", Used: 2, Limit: 1}); len(r.overs) != 1 || r.overs[0] != want {
		t.Errorf("%+v, want %+v", r.overs, want)
	}
}

// proves G21: no arithmetic overflows.
func TestHugeNumbers(t *testing.T) {
	r := newRig(t, class("x", quota.Unlimited, quota.Unlimited))
	c := r.mustTake("a", "x", math.MaxInt64)
	_, err := r.take("b", "x", 1)
	r.refuses(err, quota.Exceeded{Class: "x", Owner: "", Used: math.MaxInt64, Asked: 1, Limit: quota.Unlimited})
	_, err = r.Reserve(t.Context(), quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: math.MaxInt64}, {Class: "x", N: 1}}})
	r.is(err, quota.ErrInvalid)
	_, err = r.Resize(t.Context(), quota.ByID(c.ID), []quota.Amount{{Class: "x", N: 1}}, "")
	r.is(err, nil)
	r.limit("a", "x", math.MaxInt64)
	_, err = r.take("a", "x", math.MaxInt64)
	r.is(err, quota.ErrExceeded)
}
