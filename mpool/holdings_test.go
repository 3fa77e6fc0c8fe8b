package mpool

import (
	"errors"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// sums adds up what owners hold by the objects there are.
func sums(p *Pool) map[uint32][2]Holding {
	all := make(map[uint32][2]Holding)
	parents := map[uint32]uint32{}
	for _, o := range p.names.owners() {
		parents[o.Index] = o.Parent
		all[o.Index] = [2]Holding{}
	}
	all[0] = [2]Holding{}
	for info, err := range p.Objects(bg, api.Filter{}) {
		if err != nil {
			panic(err)
		}
		h := holdingOf(info.Class, info.Kind, info.Used)
		which := 0
		if info.State == api.StateUncommitted {
			which = 1
		}
		for i := info.Owner; ; i = parents[i] {
			x := all[i]
			for k := range h {
				x[which][k] += h[k]
			}
			all[i] = x
			if i == 0 {
				break
			}
		}
	}
	return all
}

func (r *rig) sumsHold(p *Pool) {
	r.t.Helper()
	for owner, want := range sums(p) {
		committed, uncommitted := p.Held(owner)
		if committed != want[0] || uncommitted != want[1] {
			r.t.Errorf("owner %d holds %v and %v; its objects add up to %v", owner, committed, uncommitted, want)
		}
	}
}

// proves G22, G28
//
// Every way to make an object counts for its owner and for those above, and asks them;
// every way in which it ends gives back. EDQUOT comes before ENOSPC. After activation
// the sums are those of the objects.
func TestHoldings(t *testing.T) {
	r := newRig(t, 1, 32<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		top, err := p.AddOwner(bg, "top", 0)
		r.ok(err)
		a, err := p.AddOwner(bg, "a", top)
		r.ok(err)
		b, err := p.AddOwner(bg, "b", top)
		r.ok(err)
		limits := func() HoldingLimits {
			return HoldingLimits{Total: noLimits(), Default: noLimits(), Own: map[uint32]Holding{}}
		}
		l := limits()
		own := noLimits()
		own[HoldMblocks] = 3
		l.Own[top] = own
		p.SetHoldingLimits(l)
		o := api.AllocOptions{Capacity: 100 << 10, Owner: a}
		m1, err := p.AllocMblock(bg, o)
		r.ok(err)
		r.sumsHold(p)
		o.Owner = b
		m2, err := p.PutMblock(bg, o, []byte("x"))
		r.ok(err)
		r.sumsHold(p)
		m3, err := p.TryAllocMblock(o)
		r.ok(err)
		for _, owner := range []uint32{a, b, top} {
			o.Owner = owner
			_, err := p.AllocMblock(bg, o)
			r.want(api.EDQUOT, err)
			_, err = p.PutMblock(bg, o, []byte("x"))
			r.want(api.EDQUOT, err)
			_, err = p.TryAllocMblock(o)
			r.want(api.EDQUOT, err)
		}
		var e *api.Error
		_, err = p.AllocMblock(bg, o)
		want := "mblock alloc: class mpool.mblocks: owner top may hold 3 and holds 3; 1 more do not fit (EDQUOT)"
		if !errors.As(err, &e) || e.Error() != want || e.Want != 1 || e.Have != 0 {
			t.Errorf("%v, want %s", err, want)
		}
		r.sumsHold(p)
		r.ok(m3.Abort(bg))
		r.ok(m1.Commit(bg)) // its unused zones are not held any more
		r.sumsHold(p)
		r.ok(m2.Delete(bg))
		r.sumsHold(p)

		l = limits()
		l.Total[HoldCapacity] = 1 << 20
		l.Default[HoldMlogs] = 2
		p.SetHoldingLimits(l)
		_, err = p.AllocMblock(bg, api.AllocOptions{Capacity: 1 << 30, Owner: a}) // neither fits
		r.want(api.EDQUOT, err)
		id, err := p.CreateMDC(bg, api.AllocOptions{Capacity: 64 << 10, Owner: a})
		r.ok(err)
		r.sumsHold(p)
		_, err = p.AllocMlog(bg, api.AllocOptions{Capacity: 64 << 10, Owner: a})
		r.want(api.EDQUOT, err)
		_, err = p.CreateMDC(bg, api.AllocOptions{Capacity: 64 << 10, Owner: b})
		r.want(api.EDQUOT, err) // both are top's, which has two
		late, err := p.AddOwner(bg, "late", 0)
		r.ok(err)
		log, err := p.AllocMlog(bg, api.AllocOptions{Capacity: 64 << 10, Owner: late})
		r.ok(err)
		r.sumsHold(p)
		_, err = p.CreateMDC(bg, api.AllocOptions{Capacity: 64 << 10, Owner: late})
		r.want(api.EDQUOT, err)
		r.ok(log.Commit(bg))
		r.ok(log.Put())
		p.SetHoldingLimits(limits())
		_, err = p.ReallocMblock(bg, layout.NewObjectID(layout.KindMblock, 1<<20), api.AllocOptions{Capacity: 1 << 30, Owner: a})
		r.want(api.ENOSPC, err)
		r.sumsHold(p)
		before := sums(p)
		r.ok(m1.Put())
		r.ok(p.Close())
		p = r.activate()
		r.sumsHold(p)
		for owner, want := range sums(p) {
			if want != before[owner] {
				t.Errorf("owner %d: %v after activation, %v before", owner, want, before[owner])
			}
		}
		r.ok(p.DeleteMDC(bg, id))
		r.sumsHold(p)
		r.ok(p.Close())
	})
}

// proves G21: an owner has a path by which limits can be set for it: names have no '/',
// and there are as many names and bytes in a path as quotas have room for.
func TestPathsOfOwners(t *testing.T) {
	r := newRig(t, 3, 16<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		for _, bad := range []string{"a/b", "/", "a\n", ""} {
			_, err := p.AddOwner(bg, bad, 0)
			r.want(api.EINVAL, err)
		}
		for _, c := range []struct {
			bytes, names int
		}{{api.MaxOwnerName, (api.MaxOwnerPath + 1) / (api.MaxOwnerName + 1)}, {1, api.MaxOwnerDepth}} {
			above := uint32(0)
			for range c.names {
				i, err := p.AddOwner(bg, strings.Repeat("n", c.bytes), above)
				r.ok(err)
				above = i
			}
			_, err := p.AddOwner(bg, "n", above)
			r.want(api.EINVAL, err)
		}
		r.ok(p.Close())
	})
}

// The system's containers are made once, together with their root, which users cannot
// touch.
func TestSystemContainer(t *testing.T) {
	r := newRig(t, 2, 16<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		_, err := p.SystemContainer(bg, ".x", 0)
		r.want(api.ENOENT, err)
		_, err = p.SystemContainer(bg, "x", 1<<16)
		r.want(api.EINVAL, err)
		c, err := p.SystemContainer(bg, ".x", 1<<16)
		r.ok(err)
		r.ok(c.Append(bg, []byte("y"), true))
		_, err = p.SystemContainer(bg, ".x", 1<<16)
		r.want(api.EBUSY, err)
		roots, err := p.Roots(bg)
		r.ok(err)
		if len(roots) != 1 || roots[0].Name != ".x" {
			t.Fatalf("roots %v", roots)
		}
		r.want(api.EPERM, p.SetRoots(bg, []api.Root{{Name: ".x"}}))
		r.want(api.EPERM, p.CommitMany(bg, nil, []api.Root{{Name: ".x"}}))
		r.ok(c.Close(bg))
		r.ok(p.Close())
		p = r.activate()
		c, err = p.SystemContainer(bg, ".x", 0)
		r.ok(err)
		r.ok(c.Close(bg))
		r.ok(p.Close())
	})
}
