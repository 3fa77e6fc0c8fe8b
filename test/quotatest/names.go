package quotatest

import (
	"fmt"
	"testing"

	"github.com/mpool-go/mpool/quota"
)

// testNames: proves G21, G24. What is taken is refused before the store is asked to
// write it, and what is removed leaves nothing behind.
func testNames(t *testing.T, open func(testing.TB) Store) {
	ctx, s, clock := t.Context(), open(t), NewClock()
	l := quota.New(s, quota.Options{Now: clock.Now})
	is := func(err, want error) {
		t.Helper()
		if !sameError(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
		must(t, &s)
	}
	define(t, l, "x", 10)
	one := []quota.Amount{{Class: "x", N: 1}}
	first, err := l.Claim(ctx, quota.Ask{Owner: "a", Amounts: one, Real: "taken"})
	is(err, nil)
	_, err = l.Claim(ctx, quota.Ask{Owner: "a", Amounts: one, Real: "taken"})
	is(err, quota.ErrExists)
	second, err := l.Reserve(ctx, quota.Ask{Owner: "a", Amounts: one})
	is(err, nil)
	_, err = l.Provision(ctx, second.ID, "taken", "")
	is(err, quota.ErrExists)
	_, err = l.Release(ctx, quota.ByID(first.ID), "")
	is(err, nil)
	_, err = l.Provision(ctx, second.ID, "taken", "") // it is free again
	is(err, nil)
	got, err := l.Get(ctx, quota.ByReal("taken"))
	is(err, nil)
	if got.ID != second.ID {
		t.Errorf("the real id is claim %v's, want %v", got.ID, second.ID)
	}
	_, err = l.Resize(ctx, quota.ByReal("taken"), []quota.Amount{{Class: "x", N: 0}}, "")
	is(err, nil)

	// A class goes with its limits; another of its name has none of them.
	is(l.SetLimit(ctx, quota.OwnerLimit{Owner: "a", Class: "x", Limit: 1}), nil)
	is(l.SetLimit(ctx, quota.OwnerLimit{Owner: "b", Class: "x", Limit: 0}), nil)
	is(l.RemoveClass(ctx, "x"), nil)
	is(l.RemoveClass(ctx, "x"), quota.ErrNotFound)
	_, err = l.Reserve(ctx, quota.Ask{Owner: "a", Amounts: one})
	is(err, quota.ErrNotFound)
	define(t, l, "y", 10) // where x was
	define(t, l, "x", 10)
	if list, err := l.Limits(ctx); err != nil || len(list) != 0 {
		t.Errorf("limits %v, %v", list, err)
	}
	_, err = l.Reserve(ctx, quota.Ask{Owner: "b", Amounts: []quota.Amount{{Class: "x", N: 3}, {Class: "y", N: 4}}})
	is(err, nil)
	is(l.RemoveClass(ctx, "y"), quota.ErrInUse)

	above := ""
	for i := range quota.MaxDepth - 1 {
		name := fmt.Sprint("deep-", i)
		is(l.AddOwner(ctx, quota.Owner{Name: name, Parent: above}), nil)
		above = name
	}
	is(l.AddOwner(ctx, quota.Owner{Name: "too-deep", Parent: above}), quota.ErrInvalid)
	_, err = l.Reserve(ctx, quota.Ask{Owner: above, Amounts: one})
	is(err, nil)
	if sum, err := sums(ctx, s, "deep-0", "x"); err != nil || sum != (quota.Sum{Reserved: 1}) {
		t.Errorf("%+v, %v", sum, err)
	}
}
