package server

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/uhandle"
)

// What an allocation gives that is answered to nobody is not kept.
//
// proves S33
func TestAllocDuringDeath(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	pool := w.openPool()
	entered, hold := make(chan struct{}, 4), make(chan struct{})
	r.b.hook(func(_ context.Context, op string) error {
		if strings.HasSuffix(op, "alloc") {
			entered <- struct{}{}
			<-hold
			// The pool does not see that its caller is gone.
			return nil
		}
		return nil
	})
	r.b.deaf(true)
	for i, op := range []ioctl.Op{ioctl.OpMblockAlloc, ioctl.OpMlogAlloc} {
		w.send(ioctl.Header{Op: op, Tag: uint64(50 + i)}, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1}})
		<-entered
	}
	w.conn.Close()
	r.nextReaped(1)
	close(hold)
	r.eventually("both were made", func(p *fakePool) bool { return p.next == 3 })
	r.eventually("both are gone", func(p *fakePool) bool { return len(p.objects) == 0 })
}

// An object that another session found in the moment between its birth and its
// adoption is aborted all the same when its session ends.
//
// proves S33
func TestOrphanInUse(t *testing.T) {
	r := newRig(t)
	w, other := r.raw(), r.raw()
	pool, othersPool := w.openPool(), other.openPool()
	born, found := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	r.b.hook(func(_ context.Context, op string) error {
		// Of the finder, who looks whose it is; then of sweepers.
		if op == "object info" && !first.Swap(true) {
			close(found)
			<-born
		}
		return nil
	})
	// Made behind the server's back: nobody has adopted it yet.
	b := must[api.Mblock](t)(r.pool().AllocMblock(context.Background(), api.AllocOptions{Capacity: 1}))
	other.send(ioctl.Header{Op: ioctl.OpMblockFind, Tag: 70}, &ioctl.Find{Pool: othersPool, ID: b.ID()})
	<-found
	// Now its session gets it, and dies.
	s := r.sessionOf(t, pool)
	a, err := r.srv.pools.get("data")
	if err != nil {
		t.Fatal(err)
	}
	a.adopt(s, b.ID())
	if err := b.Put(); err != nil {
		t.Fatal(err)
	}
	w.conn.Close()
	if e := r.nextReaped(1); e.Aborted != 0 {
		t.Errorf("%+v", e)
	}
	r.checkOne(api.StateUncommitted) // in use by the finder
	close(born)
	_, err = other.answer(ioctl.OpMblockFind, 70)
	want(t, api.ENOENT, err)
	r.eventually("it is gone", func(p *fakePool) bool { return len(p.objects) == 0 })
}

// An object that its session was just trying to abort when the session ended is
// not forgotten if that fails: meanwhile it is not to be found.
//
// proves S33
func TestOrphanBeingAborted(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	b := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: w.openPool(), Options: api.AllocOptions{Capacity: 1}})
	entered, hold := make(chan struct{}), make(chan struct{})
	var began, aborting atomic.Bool
	r.b.hook(func(_ context.Context, op string) error {
		switch {
		case op == "object abort" && !began.Swap(true):
			aborting.Store(true)
			close(entered)
			<-hold
			aborting.Store(false)
			return api.Errorf(api.ESTATE, op, "a commit came between")
		case op == "mblock find" && aborting.Load():
			return api.Errorf(api.ENOENT, op, "being deleted")
		}
		return nil
	})
	w.send(ioctl.Header{Op: ioctl.OpObjectAbort, Tag: 99}, &ioctl.Target{Handle: b})
	<-entered
	w.conn.Close()
	r.nextReaped(1) // by then it was looked for
	close(hold)
	r.eventually("it is gone", func(p *fakePool) bool { return len(p.objects) == 0 })
}

// sessionOf returns the session that has a handle.
func (r *rig) sessionOf(t *testing.T, h ioctl.Handle) *session {
	t.Helper()
	for _, s := range r.srv.all() {
		if e, err := s.table.Use(uhandle.Handle(h), kindPool); err == nil {
			s.table.Done(e)
			return s
		}
	}
	t.Fatal("no session has the handle")
	return nil
}
