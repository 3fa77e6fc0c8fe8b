package credit_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mpool-go/mpool/credit"
)

// proves G42, G44: who does not give back in time is fenced, and its token with
// it, also by way of a middle; nobody else loses anything.
func TestFencing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		call := credit.Config{CallBack: credit.DefaultCallBack}
		root := w.open(nil, credit.Options{Config: call})
		mid := w.open(root, credit.Options{Config: call})
		one, two := w.open(mid, credit.Options{}), w.open(mid, credit.Options{})
		far := w.open(root, credit.Options{})
		h := acquire(t, one, access(credit.Write, 0, 10, anyhow))
		kept := acquire(t, one, access(credit.Write, 20, 30, anyhow))
		time.Sleep(time.Hour)
		if !h.Valid() || w.check(h) != nil {
			t.Fatal("a credit that nobody wants was lost")
		}
		start := time.Now()
		next := acquire(t, two, access(credit.Write, 0, 10, anyhow))
		if d := time.Since(start); d != credit.DefaultCallBack {
			t.Errorf("it was taken after %v", d)
		}
		if !isClosed(h.Lost()) || h.Valid() || !errors.Is(w.check(h), credit.ErrStale) {
			t.Errorf("the fenced holder: lost %v, valid %v, work %v", isClosed(h.Lost()), h.Valid(), w.check(h))
		}
		if err := w.check(next); err != nil || next.Token().Compare(h.Token()) <= 0 {
			t.Errorf("the new holder: %v; tokens %v and %v", err, h.Token(), next.Token())
		}
		if err := h.Release(credit.Version{}); !errors.Is(err, credit.ErrStale) {
			t.Errorf("release of what is lost: %v", err)
		}
		last := acquire(t, far, access(credit.Write, 0, 10, anyhow)) // the root fences the middle's
		if w.check(last) != nil || !errors.Is(w.check(next), credit.ErrStale) || w.check(kept) != nil || !kept.Valid() {
			t.Errorf("work of the last %v, of the one before %v, elsewhere %v", w.check(last), w.check(next), w.check(kept))
		}
		if err := next.Release(credit.Version{}); !errors.Is(err, credit.ErrStale) {
			t.Errorf("release of what is lost: %v", err)
		}
		release(t, last)
		release(t, kept)
		w.close()
	})
}

// proves G42, G51: a pool is one host's at a time, and never taken from who has it
// active; the next one has a later token.
func TestActivationIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{Config: credit.Config{CallBack: time.Second}})
		a, b := w.open(root, credit.Options{}), w.open(root, credit.Options{})
		pool := credit.Request{
			Resource: credit.Resource{Type: credit.Activation, ID: 1}, Credit: credit.Activation.All(), Flags: anyhow,
		}
		h := acquire(t, a, pool)
		c := waits(t, b, pool)
		time.Sleep(time.Hour)
		if !h.Valid() || !isClosed(h.Wanted()) {
			t.Error("the active host lost its pool, or was not asked for it")
		}
		release(t, h)
		next := granted(t, c)
		if next.Token().Compare(h.Token()) <= 0 {
			t.Errorf("tokens %v and then %v", h.Token(), next.Token())
		}
		release(t, next)
		w.close()
	})
}

// proves G47: death of a debtor returns what it and those below it had, after
// fencing; nothing of it is left.
func TestDeathOfDebtor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{})
		mid := w.open(root, credit.Options{})
		leaf := w.open(mid, credit.Options{})
		other := w.open(root, credit.Options{})
		h := acquire(t, leaf, access(credit.Write, 0, 10, anyhow))
		m := acquire(t, mid, access(credit.Write, 10, 20, anyhow))
		c := waits(t, other, access(credit.Write, 0, 20, anyhow))
		mid.Abandon()
		next := granted(t, c)
		if !errors.Is(w.check(h), credit.ErrStale) || !errors.Is(w.check(m), credit.ErrStale) || w.check(next) != nil {
			t.Errorf("work of the dead: %v, %v; of the living: %v", w.check(h), w.check(m), w.check(next))
		}
		if !isClosed(h.Lost()) || !isClosed(m.Lost()) {
			t.Error("who borrowed from the dead was not told")
		}
		refused(t, leaf, access(credit.Read, 30, 31, anyhow), credit.ErrNoCreditor)
		release(t, next)
		w.close()
	})
}

// proves G47: who has lost its creditor gets another one, or the same anew.
func TestDeathOfCreditor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{})
		mid := w.open(root, credit.Options{})
		leaf := w.open(mid, credit.Options{})
		h := acquire(t, leaf, access(credit.Write, 0, 10, anyhow))
		mid.Abandon()
		if !isClosed(h.Lost()) {
			t.Error("a credit of a dead creditor, without a lease")
		}
		if err := leaf.Reconnect(credit.NewLocal(mid)); !errors.Is(err, credit.ErrClosed) {
			t.Errorf("to the dead: %v", err)
		}
		refused(t, leaf, access(credit.Read, 0, 1, anyhow), credit.ErrNoCreditor)
		if err := leaf.Reconnect(credit.NewLocal(root)); err != nil {
			t.Fatal(err)
		}
		next := acquire(t, leaf, access(credit.Write, 0, 10, anyhow))
		if w.check(next) != nil || next.Token().Compare(h.Token()) <= 0 {
			t.Errorf("with a new creditor: %v, tokens %v and %v", w.check(next), h.Token(), next.Token())
		}
		if err := leaf.Reconnect(credit.NewLocal(root)); err != nil {
			t.Fatal(err)
		}
		if !isClosed(next.Lost()) {
			t.Error("a new connection begins with nothing")
		}
		release(t, acquire(t, leaf, access(credit.Write, 0, 10, anyhow)))
		w.close()
	})
}

// proves G44: who loses write by force loses read there with it, for what is
// there is not known to it any more.
func TestWriteLostReadLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{Config: credit.Config{CallBack: time.Second}})
		a, b := w.open(root, credit.Options{}), w.open(root, credit.Options{})
		h := acquire(t, a, access(credit.Read|credit.Write, 0, 10, anyhow))
		kept := acquire(t, a, access(credit.Write, 30, 40, anyhow))
		release(t, acquire(t, a, access(credit.Read, 10, 20, anyhow)))
		next := acquire(t, b, access(credit.Read, 0, 10, anyhow)) // conflicts with write only
		synctest.Wait()
		if h.Valid() {
			t.Error("the fenced hold is valid")
		}
		refused(t, a, access(credit.Read, 0, 10, 0), credit.ErrRemote)
		release(t, acquire(t, a, access(credit.Read, 10, 20, 0)))
		if err := w.check(kept); err != nil || !kept.Valid() {
			t.Errorf("what nobody wanted of it: %v", err)
		}
		release(t, kept)
		release(t, next)
		w.close()
	})
}
