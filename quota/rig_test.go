package quota_test

import (
	"context"
	"errors"
	"testing"

	"github.com/mpool-go/mpool/quota"
	"github.com/mpool-go/mpool/test/quotatest"
)

// rig is a ledger on a store in memory.
type rig struct {
	*quota.Ledger
	t     *testing.T
	store quotatest.Store
	clock *quotatest.Clock
	overs []quota.Over
}

func newRig(t *testing.T, classes ...quota.Class) *rig {
	t.Helper()
	r := &rig{t: t, store: memory(t), clock: quotatest.NewClock()}
	r.Ledger = quota.New(r.store, quota.Options{Now: r.clock.Now, OnOver: func(o quota.Over) { r.overs = append(r.overs, o) }})
	for _, c := range classes {
		if err := r.Define(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := r.store.Verify(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func class(name string, total, byDefault quota.Limit) quota.Class {
	c := quota.NewClass(name, quota.Count)
	c.Total, c.Default = total, byDefault
	return c
}

func (r *rig) owner(name, parent string) {
	r.t.Helper()
	if err := r.AddOwner(r.t.Context(), quota.Owner{Name: name, Parent: parent}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) limit(owner, class string, n quota.Limit) {
	r.t.Helper()
	if err := r.SetLimit(r.t.Context(), quota.OwnerLimit{Owner: owner, Class: class, Limit: n}); err != nil {
		r.t.Fatal(err)
	}
}

// take claims n of a class for an owner.
func (r *rig) take(owner, class string, n int64) (*quota.Claim, error) {
	return r.Reserve(r.t.Context(), quota.Ask{Owner: owner, Amounts: []quota.Amount{{Class: class, N: n}}})
}

func (r *rig) mustTake(owner, class string, n int64) *quota.Claim {
	r.t.Helper()
	c, err := r.take(owner, class, n)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) used(owner, class string, held, reserved int64) {
	r.t.Helper()
	var sum quota.Sum
	_ = r.store.View(context.Background(), func(b quota.Reader) { sum = b.Used(owner, class) })
	if want := (quota.Sum{Held: held, Reserved: reserved}); sum != want {
		r.t.Errorf("%q has %+v of %s, want %+v", owner, sum, class, want)
	}
}

func (r *rig) refuses(err error, want quota.Exceeded) {
	r.t.Helper()
	var e *quota.Exceeded
	if !errors.As(err, &e) || *e != want || !errors.Is(err, quota.ErrExceeded) {
		r.t.Errorf("got %v, want %v", err, &want)
	}
}

func (r *rig) is(err, want error) {
	r.t.Helper()
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		r.t.Errorf("got %v, want %v", err, want)
	}
}
