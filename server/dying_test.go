package server

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// From the end of a session on nobody meets a reference of its, although nothing of
// what it held is given back yet; and all of it is, once, when it is reaped.
//
// proves S33
func TestTheDeadHoldNothing(t *testing.T) {
	const objects = 200
	ctx := context.Background()
	r := newEngineRig(t)
	a, err := r.srv.pools.get("data")
	if err != nil {
		t.Fatal(err)
	}
	w, other := r.raw(), r.raw()
	pool, othersPool := w.openPool(), other.openPool()
	var ids []layout.ObjectID
	var handles []ioctl.Handle
	for range objects {
		m := must[api.Mblock](t)(a.pool.AllocMblock(ctx, api.AllocOptions{Capacity: 1}))
		if err := m.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		if err := m.Put(); err != nil {
			t.Fatal(err)
		}
		w.opened(ioctl.OpMblockFind, &ioctl.Find{Pool: pool, ID: m.ID()})
		handles = append(handles, other.opened(ioctl.OpMblockFind, &ioctl.Find{Pool: othersPool, ID: m.ID()}))
		ids = append(ids, m.ID())
	}
	w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1}})
	refs := func(i int) uint32 {
		t.Helper()
		reply, ok := other.ok(ioctl.OpObjectInfo, &ioctl.Target{Handle: handles[i]}).(*ioctl.ObjectReply)
		if !ok {
			t.Fatal("no reply")
		}
		return reply.Info.Refs
	}
	_, err = other.ask(ioctl.OpObjectDelete, &ioctl.Target{Handle: handles[7]})
	want(t, api.EBUSY, err)
	if n := refs(7); n != 2 {
		t.Fatalf("%d references, want 2", n)
	}
	// It has ended, and its reader has no time.
	s := r.sessionOf(t, pool)
	if n := r.srv.dying.add(s); n != objects+2 {
		t.Errorf("%d handles have ended, want %d", n, objects+2)
	}
	other.ok(ioctl.OpObjectDelete, &ioctl.Target{Handle: handles[7]})
	if n := refs(8); n != 1 {
		t.Errorf("%d references, want the asker's", n)
	}
	if o, err := a.pool.Describe(ctx, ids[9]); err != nil || o.Refs != 2 {
		t.Errorf("what nobody asked for was given back: %d references, %v", o.Refs, err)
	}
	w.conn.Close()
	r.nextReaped(1)
	for i, id := range ids {
		if o, err := a.pool.Describe(ctx, id); i != 7 && (err != nil || o.Refs != 1) {
			t.Errorf("%v has %d references, %v", id, o.Refs, err)
		}
	}
	if n := r.srv.dying.n.Load(); n != 0 || len(r.srv.dying.all()) != 0 {
		t.Errorf("%d sessions are still dying", n)
	}
	if i := must[api.PoolInfo](t)(a.pool.Info(ctx)); i.Space.Uncommitted != 0 {
		t.Errorf("%d bytes are uncommitted", i.Space.Uncommitted)
	}
}

// The moment at which the event says that all was free is not before it was.
//
// proves S33
func TestFreeIsToldWhenItIs(t *testing.T) {
	ctx := context.Background()
	r := newEngineRig(t)
	a, err := r.srv.pools.get("data")
	if err != nil {
		t.Fatal(err)
	}
	w, other := r.raw(), r.raw()
	pool, othersPool := w.openPool(), other.openPool()
	m := must[api.Mblock](t)(a.pool.AllocMblock(ctx, api.AllocOptions{Capacity: 1}))
	if err := errors.Join(m.Commit(ctx), m.Put()); err != nil {
		t.Fatal(err)
	}
	w.opened(ioctl.OpMblockFind, &ioctl.Find{Pool: pool, ID: m.ID()})
	h := other.opened(ioctl.OpMblockFind, &ioctl.Find{Pool: othersPool, ID: m.ID()})
	s := r.sessionOf(t, pool)
	r.srv.dying.mu.Lock() // its handles cannot end
	w.conn.Close()
	for !s.gone.Load() {
		runtime.Gosched()
	}
	asked := uhandle.Monotonic()
	reply, ok := other.ok(ioctl.OpObjectInfo, &ioctl.Target{Handle: h}).(*ioctl.ObjectReply)
	r.srv.dying.mu.Unlock()
	if !ok || reply.Info.Refs != 2 {
		t.Fatalf("%+v, want two references", reply)
	}
	e := r.nextReaped(1)
	if now := uhandle.Monotonic(); e.Free <= asked || e.Free > now {
		t.Errorf("all was free at %d; references were seen at %d, and now it is %d", e.Free, asked, now)
	}
	if e.Exit != 0 {
		t.Errorf("the living was told to exit at %d", e.Exit)
	}
	other.ok(ioctl.OpObjectDelete, &ioctl.Target{Handle: h})
}

// A pool that only the dead have open can be deactivated.
//
// proves S33
func TestTheDeadHaveNothingOpen(t *testing.T) {
	r := newEngineRig(t)
	w := r.raw()
	pool := w.openPool()
	w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1}})
	ctx := context.Background()
	if err := r.srv.DeactivatePool(ctx, "data"); api.CodeOf(err) != api.EBUSY {
		t.Fatalf("%v", err)
	}
	r.srv.dying.add(r.sessionOf(t, pool))
	if err := r.srv.DeactivatePool(ctx, "data"); err != nil {
		t.Error(err)
	}
	w.conn.Close()
	r.nextReaped(1)
}
