package server

import (
	"context"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// calledBackIn has call-backs end after a while.
func calledBackIn(d time.Duration) func(*Options) {
	return func(o *Options) { o.CallBack = d }
}

// proves G47: of who dies while it waits for what a handle does nothing is left, also if
// no other client has or wants a credit.
func TestDeathOfWhoWaits(t *testing.T) {
	r := newRig(t)
	id := r.object(layout.KindMblock)
	a, b := r.borrower(), r.borrower()
	h := must[ioctl.Handle](t)(a.find(id))
	c := r.creditor()
	b.waits(context.Background(), c, id, credit.Write)
	if is, n := c.watches(id); !is || n != 1 {
		t.Fatalf("watched %v, %d claims", is, n)
	}
	b.end()
	until(t, "nobody watches the object", func() bool { is, _ := c.watches(id); return !is })
	a.ok(ioctl.OpClose, &ioctl.Target{Handle: h})
	a.end()
	r.residue()
}

// proves G47, G49: who does not give back what a delete needs is fenced, and the object
// is not watched any more.
func TestDeleteAfterFence(t *testing.T) {
	r := newRig(t, calledBackIn(50*time.Millisecond))
	id := r.object(layout.KindMblock)
	a, b := r.borrower(), r.borrower()
	if err := a.acquire(id, credit.Read).Release(credit.Version{}); err != nil {
		t.Fatal(err)
	}
	h := must[ioctl.Handle](t)(b.find(id))
	a.stop()
	b.ok(ioctl.OpObjectDelete, &ioctl.Target{Handle: h})
	until(t, "nobody watches what is gone", func() bool { is, _ := r.creditor().watches(id); return !is })
	a.end()
	b.end()
	r.residue()
}

// proves G49: who holds a read credit on an object can open it while others wait to
// delete it; others cannot. The deadline of who waits stays as it is.
func TestOpenOfWhatIsHeld(t *testing.T) {
	r := newRig(t)
	id := r.object(layout.KindMblock)
	a, b, o := r.borrower(), r.borrower(), r.borrower()
	held := a.acquire(id, credit.Read)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	gone := b.waits(ctx, r.creditor(), id, credit.Delete)
	h, err := a.find(id)
	if err != nil {
		t.Fatalf("what is held cannot be opened: %v", err)
	}
	_, err = o.find(id)
	want(t, api.EBUSY, err)
	if err := held.Release(credit.Version{}); err != nil {
		t.Fatal(err)
	}
	until(t, "it went back", func() bool { return len(r.creditor().root.Loans(objectOf(id))) == 2 })
	_, err = a.find(id) // it holds it no more
	want(t, api.EBUSY, err)
	a.ok(ioctl.OpClose, &ioctl.Target{Handle: h})
	until(t, "nobody waits for what was closed", func() bool { return waiting(r.creditor(), id) == 0 })
	if err := <-gone; err != nil {
		t.Error(err)
	}
	for _, x := range []*borrower{a, b, o} {
		x.end()
	}
	r.residue()
}

// proves G42: an object that was committed is read by who has a handle on it, also if
// somebody waited for it when it was, and gave up.
func TestCommittedWhileWanted(t *testing.T) {
	r := newRig(t)
	a, b, o := r.borrower(), r.borrower(), r.borrower()
	made := a.ok(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: a.pool, Options: api.AllocOptions{Capacity: 4096}}).(*ioctl.Opened)
	c := r.creditor()
	own := a.acquire(made.ID, credit.Append) // keeps it watched
	ctx, stop := context.WithCancel(t.Context())
	gone := b.waits(ctx, c, made.ID, credit.Write)
	a.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: made.Handle})
	stop()
	if err := <-gone; err == nil {
		t.Fatal("granted")
	}
	until(t, "nobody waits", func() bool { return waiting(c, made.ID) == 0 })
	if _, err := o.find(made.ID); err != nil {
		t.Errorf("a committed object cannot be opened: %v", err)
	}
	if err := own.Release(credit.Version{}); err != nil {
		t.Error(err)
	}
	for _, x := range []*borrower{a, b, o} {
		x.end()
	}
	r.residue()
}

// proves G44: who was fenced cannot erase the log that another one holds the credit to
// append to.
func TestEraseByTheFenced(t *testing.T) {
	r := newRig(t, calledBackIn(20*time.Millisecond))
	id := r.object(layout.KindMlog)
	a, b := r.borrower(), r.borrower()
	h := must[ioctl.Handle](t)(a.find(id))
	lost := a.acquire(id, credit.Append)
	held := b.acquire(id, credit.Append) // after the deadline
	<-lost.Lost()
	_, err := a.ask(ioctl.OpMlogErase, &ioctl.MlogErase{Mlog: h})
	want(t, api.EBUSY, err)
	own := must[ioctl.Handle](t)(b.find(id))
	b.ok(ioctl.OpMlogErase, &ioctl.MlogErase{Mlog: own})
	if err := held.Release(credit.Version{}); err != nil {
		t.Error(err)
	}
	a.end()
	b.end()
	r.residue()
}
