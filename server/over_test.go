package server

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
	"github.com/mpool-go/mpool/layout"
)

// A session whose connection has ended is not over before the commits are that its
// ring has begun: who has waited for that sees what became of them.
//
// proves S36 S46
func TestRingCommitsOutliveTheConnection(t *testing.T) {
	for _, verb := range []ioctl.Op{ioctl.OpObjectCommit, ioctl.OpMblockPut} {
		t.Run(verb.Name(), func(t *testing.T) {
			r, g := newGateRig(t)
			w := r.ringDial(16)
			w.do(w.putDesc(0, 0, 10))
			g.hold(func(o *bdev.Op) bool { return o.Code == bdev.OpFlush })
			var d *ring.Descriptor
			if verb == ioctl.OpMblockPut {
				d = w.putDesc(0, 0, 4096)
			} else {
				h := w.alloc(4096)
				w.do(w.desc(ioctl.OpMblockWrite, h, 0, 0, 4096))
				d = w.desc(verb, h, 0, 0, 0)
			}
			w.put(d)
			s := r.sessionOf(t, w.pool)
			until(t, "it is begun", func() bool { return s.lasting.Load() == 1 || s.info().InFlight == 1 })
			g.heldAtLeast(t, 1)
			a := must[*activePool](t)(r.srv.pools.get("data"))
			id := a.onlyOf(s)
			w.conn.Close()
			r.nextReaped(1)

			asks := r.raw()
			pool := asks.openPool()
			there := func() bool {
				list := asks.ok(ioctl.OpClientList, &ioctl.ClientList{After: s.id - 1}).(*ioctl.ClientsReply).Clients
				return len(list) > 0 && list[0].Session == s.id
			}
			find := func() error {
				_, err := asks.ask(ioctl.OpMblockFind, &ioctl.Find{Pool: pool, ID: id})
				return err
			}
			want(t, api.ENOENT, find())
			if !there() {
				t.Error("the session is over, and its commit is under way")
			}
			g.open()
			until(t, "the session is over", func() bool { return !there() })
			if err := find(); err != nil {
				t.Errorf("the session is over, and its commit: %v", err)
			}
			until(t, "all is settled", func() bool { n, u, m := r.left(); return n == 2 && u == 0 && m == 0 })
			until(t, "the session is gone", func() bool { return len(r.srv.all()) == 1 })
		})
	}
}

// onlyOf returns a session's only uncommitted object.
func (a *activePool) onlyOf(s *session) layout.ObjectID {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.own[s]))[0]
}

// An orphan that somebody is using is swept by whoever was, also by who took it for
// a metadata container; another session's is none to them.
//
// proves S33
func TestOrphanTakenForContainer(t *testing.T) {
	for name, ask := range map[string]ioctl.Op{"open": ioctl.OpMDCOpen, "delete": ioctl.OpMDCDelete} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			r := newEngineRig(t)
			a := must[*activePool](t)(r.srv.pools.get("data"))
			w, other := r.raw(), r.raw()
			pool := other.openPool()
			h := w.opened(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: w.openPool(), Options: api.AllocOptions{Capacity: 1}})
			reply, ok := w.ok(ioctl.OpObjectInfo, &ioctl.Target{Handle: h}).(*ioctl.ObjectReply)
			if !ok {
				t.Fatal("no reply")
			}
			id := reply.Info.ID
			_, err := other.ask(ask, &ioctl.Find{Pool: pool, ID: id})
			want(t, api.ENOENT, err)
			_, err = w.ask(ask, &ioctl.Find{Pool: w.openPool(), ID: id})
			want(t, api.EINVAL, err)

			held := must[api.Mlog](t)(a.pool.Mlog(ctx, id)) // as by a request that is at it
			w.conn.Close()
			r.nextReaped(1)
			if n := a.orphans.Load(); n != 1 {
				t.Fatalf("%d orphans, want the one in use", n)
			}
			if err := held.Put(); err != nil {
				t.Fatal(err)
			}
			_, err = other.ask(ask, &ioctl.Find{Pool: pool, ID: id})
			want(t, api.ENOENT, err)
			if n, u, m := r.left(); n != 0 || u != 0 || m != 0 {
				t.Errorf("%d objects, %d uncommitted, %d remembered are left", n, u, m)
			}
		})
	}
}

// Nothing is an orphan for ever: not what is gone before it is orphaned, nor what
// was committed before, nor what a commit comes through for later.
//
// proves S33
func TestOrphansSettle(t *testing.T) {
	ctx := context.Background()
	r := newEngineRig(t)
	a := must[*activePool](t)(r.srv.pools.get("data"))
	w, other := r.raw(), r.raw()
	pool := w.openPool()
	s := r.sessionOf(t, pool)
	h := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1}})
	id := a.onlyOf(s)
	w.ok(ioctl.OpObjectAbort, &ioctl.Target{Handle: h})
	a.orphan(s, id)
	if n := a.orphans.Load(); n != 0 {
		t.Errorf("what is gone is an orphan: %d", n)
	}

	m := must[api.Mblock](t)(a.pool.AllocMblock(ctx, api.AllocOptions{Capacity: 1}))
	a.orphan(s, m.ID())
	if n := a.orphans.Load(); n != 1 {
		t.Fatalf("%d orphans, want the one in use", n)
	}
	if err := errors.Join(m.Commit(ctx), m.Put()); err != nil {
		t.Fatal(err)
	}
	other.openPool()
	other.conn.Close()
	r.nextReaped(1)
	if n := a.orphans.Load(); n != 0 {
		t.Errorf("what is committed is an orphan after the next session's end: %d", n)
	}
	if o, err := a.pool.Describe(ctx, m.ID()); err != nil || o.State != api.StateCommitted || o.Refs != 0 {
		t.Errorf("%+v, %v", o, err)
	}
	a.orphan(s, m.ID())
	if n := a.orphans.Load(); n != 0 || s.aborted.Load() != 0 {
		t.Errorf("what is committed is an orphan: %d; %d aborted", n, s.aborted.Load())
	}
}

// Who meets a reference of the dead just before it is given back is not refused.
//
// proves S33
func TestTheDeadLetGoMeanwhile(t *testing.T) {
	r := newEngineRig(t)
	a := must[*activePool](t)(r.srv.pools.get("data"))
	w, other := r.raw(), r.raw()
	dead, asker := r.sessionOf(t, w.openPool()), r.sessionOf(t, other.openPool())
	dead.srv.dying.add(dead)
	q := &request{s: asker, ctx: context.Background()}
	calls := 0
	err := q.unlessHeld(a, mblockID(1), func() error {
		if calls++; calls > 1 {
			return nil
		}
		dead.letGo()
		dead.srv.dying.remove(dead)
		return api.Errorf(api.EBUSY, "", "the dead have it")
	})
	if err != nil || calls != 2 {
		t.Errorf("%v after %d calls", err, calls)
	}
	calls = 0
	err = q.unlessHeld(a, mblockID(1), func() error {
		calls++
		return api.Errorf(api.EBUSY, "", "the living have it")
	})
	if want(t, api.EBUSY, err); calls != 1 {
		t.Errorf("asked %d times", calls)
	}
}

// A pool that is being deactivated is not swept, and one that stays is then.
//
// proves S33
func TestNoSweepWhilePoolLeaves(t *testing.T) {
	ctx := context.Background()
	r := newEngineRig(t)
	a := must[*activePool](t)(r.srv.pools.get("data"))
	w := r.raw()
	s := r.sessionOf(t, w.openPool())
	m := must[api.Mblock](t)(a.pool.AllocMblock(ctx, api.AllocOptions{Capacity: 1}))
	id := m.ID()
	if err := m.Put(); err != nil {
		t.Fatal(err)
	}
	w.conn.Close()
	r.nextReaped(1)
	if err := a.begin("data", true); err != nil {
		t.Fatal(err)
	}
	a.orphan(s, id)
	if n := a.orphans.Load(); n != 1 {
		t.Errorf("%d orphans, want 1", n)
	}
	a.end(r.srv)
	if n := a.orphans.Load(); n != 0 || s.aborted.Load() != 1 {
		t.Errorf("%d orphans, %d aborted; want 0, 1", n, s.aborted.Load())
	}
}

// What a session sent that has ended is no breach, and not why it ended.
//
// proves S34
func TestNoBreachAfterTheEnd(t *testing.T) {
	r := newEngineRig(t)
	w := r.raw()
	s := r.sessionOf(t, w.openPool())
	s.end(ioctl.SourcePidfd)
	s.breach(nil, errPeerGone)
	if e := r.nextReaped(1); e.DetectedBy != ioctl.SourcePidfd {
		t.Errorf("noticed by %v", e.DetectedBy)
	}
	if strings.Contains(r.log.String(), "broke the protocol") {
		t.Error("it broke the protocol")
	}
}
