package credit_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mpool-go/mpool/credit"
)

// proves G42: who is called back for somebody who then gives up, by its context,
// its death or its wind-up, keeps what it has, and its deadline runs no more; by
// way of a middle, too.
func TestGivenUp(t *testing.T) {
	for _, far := range []bool{false, true} {
		for name, giveUp := range map[string]func(stop func(), o *credit.Owner){
			"cancel": func(stop func(), _ *credit.Owner) { stop() },
			"death":  func(_ func(), o *credit.Owner) { o.Abandon() },
			"closed": func(_ func(), o *credit.Owner) { go func() { _ = o.Close(context.Background()) }() },
		} {
			t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { givenUp(t, far, giveUp) }) })
		}
	}
}

func givenUp(t *testing.T, far bool, giveUp func(stop func(), o *credit.Owner)) {
	w := newTree(t)
	call := credit.Options{Config: credit.Config{CallBack: 10 * time.Second}}
	root := w.open(nil, call)
	mid := w.open(root, call)
	leaf, from := w.open(mid, credit.Options{}), mid
	if far {
		from = root
	}
	other, next := w.open(from, credit.Options{}), w.open(from, credit.Options{})
	h := acquire(t, leaf, access(credit.Write, 0, 10, anyhow))
	release(t, acquire(t, leaf, access(credit.Write, 10, 20, anyhow)))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	gone := make(chan error, 1)
	go func() {
		_, err := other.Acquire(ctx, access(credit.Write, 0, 10, anyhow))
		gone <- err
	}()
	time.Sleep(8 * time.Second) // of the bubble's clock, as all below
	first := h.Wanted()
	if !isClosed(first) {
		t.Fatal("it was not called back")
	}
	giveUp(stop, other)
	if <-gone == nil {
		t.Fatal("it was granted")
	}
	synctest.Wait()
	if isClosed(h.Wanted()) {
		t.Error("wanted still, by nobody")
	}
	time.Sleep(time.Hour)
	if !h.Valid() || w.check(h) != nil || isClosed(h.Lost()) {
		t.Error("lost to nobody")
	}
	c := waits(t, next, access(credit.Write, 5, 10, anyhow))
	time.Sleep(8 * time.Second) // more than the first left
	if !isClosed(h.Wanted()) || !h.Valid() || w.check(h) != nil {
		t.Error("called back anew, it has no new deadline")
	}
	release(t, h)
	release(t, granted(t, c))
	release(t, acquire(t, leaf, access(credit.Write, 0, 5, 0))) // what nobody wanted in the end
	release(t, acquire(t, leaf, access(credit.Write, 10, 20, 0)))
	w.close()
}

// proves G42: of two who want what a third has one gives up: the other one's
// deadline, which began with the first call-back, goes on.
func TestOneOfTwoGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{Config: credit.Config{CallBack: 10 * time.Second}})
		a, b, c := w.open(root, credit.Options{}), w.open(root, credit.Options{}), w.open(root, credit.Options{})
		h := acquire(t, a, access(credit.Write, 0, 10, anyhow))
		ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
		defer stop()
		gone := make(chan error, 1)
		start := time.Now()
		go func() {
			_, err := b.Acquire(ctx, access(credit.Write, 0, 10, anyhow))
			gone <- err
		}()
		synctest.Wait()
		next := acquire(t, c, access(credit.Read, 0, 20, anyhow))
		if <-gone == nil || time.Since(start) != 10*time.Second || h.Valid() {
			t.Errorf("granted after %v, the one before is valid: %v", time.Since(start), h.Valid())
		}
		release(t, next)
		w.close()
	})
}

// proves G42: what the creditor wants of a middle stays called back below it when
// the middle's own user gives up.
func TestWantedFromAboveToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{Config: credit.Config{CallBack: time.Hour}})
		mid := w.open(root, credit.Options{Config: credit.Config{CallBack: time.Minute}})
		leaf, far := w.open(mid, credit.Options{}), w.open(root, credit.Options{})
		h := acquire(t, leaf, access(credit.Write, 0, 10, anyhow))
		c := waits(t, far, access(credit.Write, 0, 10, anyhow))
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := mid.Acquire(ctx, access(credit.Write, 0, 10, anyhow)); err == nil {
			t.Fatal("two have it")
		}
		synctest.Wait()
		if !isClosed(h.Wanted()) {
			t.Error("not wanted any more, although it is by who waits at the root")
		}
		release(t, h)
		release(t, granted(t, c))
		w.close()
	})
}

// proves G42: space that was called back for somebody who gave up stays, as far
// as it is used.
func TestSpaceGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const gib = 1 << 30
		w := newTree(t)
		root := w.open(nil, credit.Options{Config: credit.Config{
			Capital: func(credit.Resource) credit.Credit {
				return credit.Make(credit.Span{First: 0, End: 4 * gib, Modes: 1})
			},
		}})
		mid := w.open(root, credit.Options{})
		a, b := w.open(mid, credit.Options{}), w.open(root, credit.Options{})
		amount := func(n uint64, flags credit.Flags) credit.Request {
			return credit.Request{Resource: credit.Resource{Type: credit.Space, ID: 1}, Amount: n, Flags: flags}
		}
		h := acquire(t, a, amount(3*gib, anyhow))
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := b.Acquire(ctx, amount(2*gib, anyhow)); err == nil {
			t.Fatal("there is not that much")
		}
		synctest.Wait()
		release(t, h) // it stays cached: nobody wants it
		release(t, acquire(t, a, amount(3*gib, 0)))
		w.close()
	})
}
