package server

import (
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// An id may be given again, to another session, between the end of its object
// and the end of the request that ended it. The new object is the other
// session's all the same: it is found by it, and goes with it.
//
// proves S33
func TestIDGivenAgainAtOnce(t *testing.T) {
	r := newRig(t)
	a, err := r.srv.pools.get("data")
	if err != nil {
		t.Fatal(err)
	}
	first, second := r.raw(), r.raw()
	id := mblockID(77)
	alloc := func(w *raw) (pool, h ioctl.Handle) {
		pool = w.openPool()
		return pool, w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, ID: id, Options: api.AllocOptions{Capacity: 1}})
	}
	data, h := alloc(first)
	was := r.sessionOf(t, data)
	first.ok(ioctl.OpObjectAbort, &ioctl.Target{Handle: h})
	pool, _ := alloc(second)
	a.settled(was, id) // as the abort does, late
	second.ok(ioctl.OpMblockFind, &ioctl.Find{Pool: pool, ID: id})
	second.conn.Close()
	r.eventually("it is gone", func(p *fakePool) bool { return len(p.objects) == 0 })
}

// An object whose commit came through after its request had given up is found
// by others, as any committed one.
//
// proves S12 S46
func TestCommitThatComesThroughLate(t *testing.T) {
	r := newRig(t)
	first, second := r.raw(), r.raw()
	first.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: first.openPool(), Options: api.AllocOptions{Capacity: 1}})
	pool := second.openPool()
	p := r.pool()
	id := mblockID(1)
	_, err := second.ask(ioctl.OpMblockFind, &ioctl.Find{Pool: pool, ID: id})
	want(t, api.ENOENT, err)
	p.mu.Lock()
	p.objects[id].state = api.StateCommitted
	p.mu.Unlock()
	second.ok(ioctl.OpMblockFind, &ioctl.Find{Pool: pool, ID: id})
}
