package credit_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mpool-go/mpool/credit"
)

// proves G40: what a request may do and how it ends, within one owner.
func TestLocalRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{})
		h := acquire(t, root, access(credit.Write, 0, 10, 0))
		two := acquire(t, root, access(credit.Write, 10, 20, 0)) // elsewhere: no conflict
		refused(t, root, access(credit.Read, 5, 6, credit.Try), credit.ErrBusy)
		later := waits(t, root, access(credit.Read, 5, 6, 0))
		if !isClosed(h.Wanted()) || isClosed(two.Wanted()) {
			t.Error("who waits is to be told to the holder, and to no other")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := root.Acquire(ctx, access(credit.Read, 5, 6, 0)); !errors.Is(err, credit.ErrTimeout) {
			t.Errorf("with a deadline: %v", err)
		}
		cancelled, stop := context.WithCancel(t.Context())
		stop()
		if _, err := root.Acquire(cancelled, access(credit.Read, 5, 6, 0)); !errors.Is(err, credit.ErrCanceled) {
			t.Errorf("cancelled: %v", err)
		}
		release(t, h)
		h = granted(t, later)
		if err := h.Release(credit.Version{}); err != nil {
			t.Error(err)
		}
		if err := h.Release(credit.Version{}); !errors.Is(err, credit.ErrInvalid) {
			t.Errorf("released twice: %v", err)
		}
		release(t, two)
		refused(t, root, credit.Request{Resource: object}, credit.ErrInvalid)
		refused(t, root, credit.Request{Resource: credit.Resource{Type: credit.Space}, Amount: 0}, credit.ErrInvalid)
		w.close()
		refused(t, root, access(credit.Read, 0, 1, 0), credit.ErrClosed)
	})
}

// proves G40, G41: what is elsewhere is borrowed if that is allowed, and served
// from what is cached afterwards.
func TestBorrowing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{})
		mid := w.open(root, credit.Options{})
		leaf := w.open(mid, credit.Options{})
		refused(t, leaf, access(credit.Read, 0, 10, 0), credit.ErrRemote)
		release(t, acquire(t, mid, access(credit.Read, 0, 5, credit.MayBorrow)))
		// one request, part of it from the middle, part from the root by way of it
		h := acquire(t, leaf, access(credit.Read, 0, 10, credit.MayBorrow))
		release(t, h)
		release(t, acquire(t, leaf, access(credit.Read, 2, 7, 0)))
		leaf.GiveBack(object, object.Type.All())
		synctest.Wait()
		refused(t, leaf, access(credit.Read, 2, 7, 0), credit.ErrRemote)
		release(t, acquire(t, mid, access(credit.Read, 2, 7, 0)))
		w.close()
	})
}

// proves G42: cached credits go back when they are called back, held ones when
// they are released; who only tries is not kept waiting, and moves nothing.
func TestRevoking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{})
		mid := w.open(root, credit.Options{})
		leaf := w.open(mid, credit.Options{})
		other := w.open(root, credit.Options{})
		release(t, acquire(t, leaf, access(credit.Write, 0, 10, anyhow)))
		refused(t, other, access(credit.Read, 0, 5, credit.MayBorrow), credit.ErrRemote)
		release(t, acquire(t, other, access(credit.Read, 0, 5, anyhow))) // from the root through the middle
		release(t, acquire(t, leaf, access(credit.Write, 5, 10, 0)))     // the rest stayed
		refused(t, leaf, access(credit.Write, 0, 5, 0), credit.ErrRemote)

		h := acquire(t, leaf, access(credit.Write, 0, 10, anyhow)) // part called back, part here
		refused(t, other, access(credit.Read, 9, 20, anyhow|credit.Try), credit.ErrBusy)
		if isClosed(h.Wanted()) {
			t.Error("who only tries called back what is held")
		}
		if err := w.check(h); err != nil || !h.Valid() {
			t.Errorf("after a try: %v, valid %v", err, h.Valid())
		}
		c := waits(t, other, access(credit.Read, 9, 20, anyhow))
		if !isClosed(h.Wanted()) {
			t.Error("the holder was not called back")
		}
		release(t, h)
		release(t, granted(t, c))
		w.close()
	})
}

// proves G46: readers share; a waiting writer is passed by no later reader, and
// is served when those before it let go.
func TestReadersAndWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{})
		a, b, c := w.open(root, credit.Options{}), w.open(root, credit.Options{}), w.open(root, credit.Options{})
		read, write := access(credit.Read, 0, credit.End, anyhow), access(credit.Read|credit.Write, 0, credit.End, anyhow)
		r1, r2, r3 := acquire(t, a, read), acquire(t, b, read), acquire(t, root, read)
		writer := waits(t, c, write)
		late := waits(t, a, read)
		refused(t, b, access(credit.Read, 0, 1, anyhow|credit.Try), credit.ErrBusy)
		release(t, r1)
		release(t, r2)
		select {
		case <-writer:
			t.Fatal("a writer beside a reader")
		default:
		}
		release(t, r3)
		h := granted(t, writer)
		select {
		case <-late:
			t.Fatal("a reader beside a writer")
		default:
		}
		release(t, h)
		release(t, granted(t, late))
		w.close()
	})
}

// proves G46: a request for all is served, for all of it at once, while others
// acquire and release parts of it all the time; nobody holds anything meanwhile.
func TestStarvation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{})
		all := w.open(root, credit.Options{})
		stop := make(chan struct{})
		var busy sync.WaitGroup
		ctx := t.Context()
		for i := range uint64(3) {
			o := w.open(root, credit.Options{})
			busy.Go(func() {
				for first := uint64(0); ; first++ {
					select {
					case <-stop:
						return
					default:
					}
					h, err := o.Acquire(ctx, access(credit.Write, (first+i)%20, (first+i)%20+1, anyhow))
					if err != nil {
						t.Error(err)
						return
					}
					time.Sleep(time.Millisecond) // the bubble's clock
					if err := h.Release(credit.Version{}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		time.Sleep(100 * time.Millisecond) // of the bubble's clock: let them have some
		start := time.Now()
		h := acquire(t, all, access(credit.Write, 0, 20, anyhow))
		if d := time.Since(start); d > 50*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		release(t, h)
		close(stop)
		busy.Wait()
		w.close()
	})
}

// proves G45: members of a group share what excludes all others, and it is
// there for others only when all of them gave it back.
func TestGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{})
		a := w.open(root, credit.Options{Config: credit.Config{Group: 5}})
		b := w.open(root, credit.Options{Config: credit.Config{Group: 5}})
		other := w.open(root, credit.Options{})
		x, y := acquire(t, a, access(credit.Write, 0, 10, anyhow)), acquire(t, b, access(credit.Write, 0, 10, anyhow))
		c := waits(t, other, access(credit.Write, 0, 10, anyhow))
		release(t, x)
		select {
		case <-c:
			t.Fatal("one of two has given it back")
		default:
		}
		release(t, y)
		release(t, granted(t, c))
		w.close()
	})
}

// proves G40, G45: space is asked for by amount, lent in chunks, called back as
// far as it is not used, and adds up.
func TestSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const gib = 1 << 30
		w := newTree(t)
		space := credit.Resource{Type: credit.Space, ID: 1}
		root := w.open(nil, credit.Options{Config: credit.Config{
			Capital: func(credit.Resource) credit.Credit {
				return credit.Make(credit.Span{First: 0, End: 10 * gib, Modes: 1})
			},
		}})
		a, b := w.open(root, credit.Options{}), w.open(root, credit.Options{})
		amount := func(n uint64, flags credit.Flags) credit.Request {
			return credit.Request{Resource: space, Amount: n, Flags: flags}
		}
		small := acquire(t, a, amount(1000, anyhow))
		more := acquire(t, a, amount(1000, 0)) // of the chunk that is there
		if small.Credit().Size() != 1000 || !small.Credit().Meet(more.Credit()).Empty() {
			t.Errorf("%v and %v", small.Credit(), more.Credit())
		}
		refused(t, b, amount(11*gib, anyhow), credit.ErrNotFound)
		refused(t, b, amount(10*gib, anyhow|credit.Try), credit.ErrBusy)
		rest := acquire(t, b, amount(10*gib-2000, anyhow)) // what a does not use comes back
		refused(t, a, amount(1, anyhow|credit.Try), credit.ErrBusy)
		c := waits(t, a, amount(1000, anyhow))
		release(t, rest)
		for _, h := range []*credit.Hold{small, more, granted(t, c)} {
			release(t, h)
		}
		release(t, acquire(t, b, amount(10*gib, anyhow)))
		w.close()
	})
}

// proves G50: a grant says which version there is, so that a copy of it can be
// used again, and one of another cannot.
func TestVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		now := credit.Version{1, 1} // where the work is done
		root := w.open(nil, credit.Options{Config: credit.Config{Version: func(credit.Resource) credit.Version { return now }}})
		mid := w.open(root, credit.Options{})
		a, b := w.open(mid, credit.Options{}), w.open(mid, credit.Options{})
		h := acquire(t, a, access(credit.Read, 0, 10, anyhow))
		first := h.Version()
		release(t, h)
		h = acquire(t, a, access(credit.Read, 0, 10, anyhow))
		if first != now || h.Version() != first {
			t.Errorf("versions %v, %v of %v", first, h.Version(), now)
		}
		release(t, h)
		h = acquire(t, b, access(credit.Write, 0, 10, anyhow))
		now = credit.Version{1, 2}
		if err := h.Release(now); err != nil {
			t.Fatal(err)
		}
		h = acquire(t, a, access(credit.Read, 0, 10, anyhow))
		if h.Version() != now {
			t.Errorf("version %v of %v, by way of the middle", h.Version(), now)
		}
		release(t, h)
		w.close()
	})
}
