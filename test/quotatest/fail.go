package quotatest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mpool-go/mpool/quota"
)

// failing fails one write of a store, in one of three ways.
type failing struct {
	quota.Store
	at, n int // the write that fails, and those there were
	how   error
	done  bool // it is made all the same
}

var errBroken = errors.New("broken")

func (f *failing) Apply(ctx context.Context, g quota.Generation, changes []quota.Change) error {
	if f.n++; f.n != f.at {
		return f.Store.Apply(ctx, g, changes)
	}
	if f.done {
		if err := f.Store.Apply(ctx, g, changes); err != nil {
			return err
		}
	}
	return f.how
}

// testFailures: proves G23, G24. A write fails, or its answer is lost; the same call
// with the same request id comes through, once.
func testFailures(t *testing.T, open func(testing.TB) Store) {
	for _, way := range []failing{{how: errBroken}, {how: quota.ErrUnknown}, {how: quota.ErrUnknown, done: true}, {how: quota.ErrConflict}} {
		for at := 1; ; at++ {
			s := open(t)
			f := &failing{Store: s.Store, how: way.how, done: way.done}
			if !runFailing(t, &s, f, at) {
				break
			}
		}
	}
}

// runFailing says whether the write that was to fail was reached.
func runFailing(t *testing.T, s *Store, f *failing, at int) bool {
	t.Helper()
	ctx, clock := t.Context(), NewClock()
	l := quota.New(f, quota.Options{Now: clock.Now})
	define(t, l, "x", 10)
	define(t, l, "y", 10)
	f.at, f.n = at, 0
	failed := 0
	again := func(what string, call func() error) {
		t.Helper()
		err := call()
		if errors.Is(err, errBroken) || errors.Is(err, quota.ErrUnknown) {
			failed++
			err = call()
		}
		if err != nil {
			t.Fatalf("write %d fails (%v, done %v), %s: %v", at, f.how, f.done, what, err)
		}
		must(t, s)
	}
	want := func(x, y int64) {
		t.Helper()
		sx, errX := sums(ctx, s, "a", "x")
		if sy, err := sums(ctx, s, "a", "y"); errX != nil || err != nil || sx.Total() != x || sy.Total() != y {
			t.Fatalf("write %d fails (%v, done %v): %+v and %+v, %v; want %d and %d", at, f.how, f.done, sx, sy, err, x, y)
		}
	}
	var root, child *quota.Claim
	again("reserve", func() (err error) {
		root, err = l.Reserve(ctx, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 2}, {Class: "y", N: 3}}, Request: "r1"})
		return err
	})
	want(2, 3)
	again("child", func() (err error) {
		child, err = l.Reserve(ctx, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}, Parent: root.ID, Request: "r2"})
		return err
	})
	again("provision", func() error { _, err := l.Provision(ctx, child.ID, "real", "r3"); return err })
	again("resize", func() error {
		_, err := l.Resize(ctx, quota.ByReal("real"), []quota.Amount{{Class: "x", N: 5}}, "r4")
		return err
	})
	want(7, 3)
	again("transfer", func() error { _, err := l.Transfer(ctx, quota.ByReal("real"), "b", "r5"); return err })
	want(2, 3)
	again("transfer back", func() error { _, err := l.Transfer(ctx, quota.ByReal("real"), "a", "r6"); return err })
	again("expiring", func() error {
		_, err := l.Reserve(ctx, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "y", N: 7}}, TTL: time.Second, Request: "r7"})
		return err
	})
	want(7, 10)
	clock.Jump(time.Minute)
	again("in the room of what expired", func() error {
		_, err := l.Claim(ctx, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "y", N: 7}}, Real: "second", Request: "r8"})
		return err
	})
	want(7, 10)
	again("release", func() error { _, err := l.Release(ctx, quota.ByReal("second"), "r9"); return err })
	again("release all", func() error { _, err := l.Release(ctx, quota.ByID(root.ID), "r10"); return err })
	want(0, 0)
	if _, err := l.Reserve(ctx, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 2}, {Class: "y", N: 3}}, Request: "r1"}); !errors.Is(err, quota.ErrNotFound) {
		t.Fatal(fmt.Errorf("a repeated request whose claim has ended: %w", err))
	}
	reached := f.n >= at
	if reached && !errors.Is(f.how, quota.ErrConflict) && failed != 1 {
		t.Fatalf("write %d failed %d times", at, failed)
	}
	return reached
}
