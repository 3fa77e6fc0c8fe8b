package credit_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mpool-go/mpool/credit"
)

// of is a request of a user for a group.
func of(group uint64, r credit.Request) credit.Request {
	r.Group = group
	return r
}

// proves G46, G49: what a debtor holds its group can be granted again by the creditor
// while somebody waits for it, and nobody else can; who waits does not wait for longer,
// however often it is.
func TestHeldIsGrantedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{Config: credit.Config{CallBack: 10 * time.Second}})
		own := w.open(root, credit.Options{Config: credit.Config{Group: 7}})
		other := w.open(root, credit.Options{Config: credit.Config{Group: 8}})
		held := acquire(t, own, access(credit.Read, 0, 100, anyhow))
		start := time.Now()
		next := waits(t, other, access(credit.Delete, 0, credit.End, anyhow))
		try := anyhow | credit.Try
		refused(t, root, of(9, access(credit.Read, 0, 100, try)), credit.ErrBusy)
		refused(t, root, of(7, access(credit.Read, 0, 101, try)), credit.ErrBusy) // more than it has
		refused(t, root, of(7, access(credit.Append, 0, 100, try)), credit.ErrBusy)
		refused(t, own, access(credit.Append, 0, 100, try), credit.ErrBusy)
		refused(t, root, access(credit.Read, 0, 100, try), credit.ErrBusy) // of no group
		first := acquire(t, root, of(7, access(credit.Read, 0, 100, try)))
		if !isClosed(first.Wanted()) {
			t.Error("nobody says that it is wanted")
		}
		time.Sleep(9 * time.Second)
		second := acquire(t, root, of(7, access(credit.Read, 10, 20, try)))
		h := <-next
		if took := time.Since(start); took != 10*time.Second || held.Valid() || first.Valid() || second.Valid() {
			t.Errorf("granted after %v; valid %v %v %v", took, held.Valid(), first.Valid(), second.Valid())
		}
		refused(t, root, of(7, access(credit.Read, 0, 100, try)), credit.ErrBusy)
		release(t, h)
		for _, h := range []*credit.Hold{held, first, second} {
			if err := h.Release(credit.Version{}); !errors.Is(err, credit.ErrStale) {
				t.Errorf("release: %v", err)
			}
		}
		w.close()
	})
}

// proves G42: what was granted again is wanted no more when who waited has given up.
func TestHeldIsWaived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{Config: credit.Config{CallBack: 10 * time.Second}})
		own := w.open(root, credit.Options{Config: credit.Config{Group: 7}})
		other := w.open(root, credit.Options{})
		held := acquire(t, own, access(credit.Read, 0, 100, anyhow))
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		gone := make(chan error, 1)
		go func() {
			_, err := other.Acquire(ctx, access(credit.Delete, 0, credit.End, anyhow))
			gone <- err
		}()
		synctest.Wait()
		again := acquire(t, root, of(7, access(credit.Read, 0, 100, anyhow|credit.Try)))
		if <-gone == nil {
			t.Fatal("it was granted")
		}
		time.Sleep(time.Hour)
		if isClosed(again.Wanted()) || !again.Valid() || !held.Valid() {
			t.Error("it was taken for nobody")
		}
		release(t, again)
		release(t, held)
		w.close()
	})
}

// proves G42, G45: what the root keeps is not taken at the deadline, and goes to who
// waits when it is released.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{Config: credit.Config{CallBack: time.Second}})
		other := w.open(root, credit.Options{})
		q := access(credit.Delete, 0, credit.End, anyhow)
		q.Keep = true
		busy := acquire(t, root, q)
		next := waits(t, other, access(credit.Read, 0, 10, anyhow))
		time.Sleep(time.Hour)
		if !busy.Valid() {
			t.Fatal("it was taken")
		}
		release(t, busy)
		release(t, granted(t, next))
		w.close()
	})
}

// proves G44: of two who share an atom one dies and the other is granted more: the dead
// one's token is refused, and with it the other's older one, not its newer one.
func TestUpgradeOverADeadSharer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{})
		a, b := w.open(root, credit.Options{}), w.open(root, credit.Options{})
		old := acquire(t, a, of(7, access(credit.Read, 0, 10, anyhow))) // users of one group
		dead := acquire(t, b, access(credit.Read, 0, 10, anyhow))
		b.Abandon()
		synctest.Wait()
		if w.check(old) != nil {
			t.Error("a token is refused because another sharer died")
		}
		newer := acquire(t, a, of(7, access(credit.Write, 0, 10, anyhow)))
		if w.check(dead) == nil {
			t.Error("the dead one's token is good")
		}
		if !old.Valid() || !newer.Valid() || w.check(newer) != nil {
			t.Errorf("valid %v %v, the newer token: %v", old.Valid(), newer.Valid(), w.check(newer))
		}
		if w.check(old) == nil {
			t.Error("the older token is good: say so in the package's comment")
		}
		release(t, old)
		release(t, newer)
		w.owners = w.owners[:2]
		w.close()
	})
}
