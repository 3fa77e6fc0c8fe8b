package server

import (
	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/uhandle"
)

// allocator is a pool that allocates without waiting.
type allocator interface {
	TryAllocMblock(o api.AllocOptions) (*mpool.Mblock, error)
}

// allocation returns the options in an allocation's descriptor.
func allocation(d *ring.Descriptor) api.AllocOptions {
	return api.AllocOptions{
		Class: api.Class(d.Class), Fallback: d.Flags&ring.FlagFallback != 0, Capacity: d.Offset,
		Owner: d.Owner, Tag: d.Label, UseSpare: d.Flags&ring.FlagSpare != 0,
	}
}

// completionOf is the answer to an allocation: the handle, the id, and the time in
// milliseconds, 48 bits of them.
func completionOf(m *ioctl.Opened) ring.Completion {
	c := ring.Completion{A: uint64(m.Handle), B: uint64(m.ID)}
	if !m.Created.IsZero() {
		ms := uint64(m.Created.UnixMilli())
		c.N, c.Flags = uint32(ms), uint16(ms>>32)
	}
	return c
}

// startAlloc allocates an mblock and gives a handle on it, as mblockAlloc does.
func (x *ringOp) startAlloc(v resource) error {
	if _, err := x.alloc(v, allocation(&x.d)); err != nil {
		return err
	}
	x.obj = nil // nothing is to be committed
	x.end(nil)
	return nil
}

// alloc allocates the object of the operation, with a handle, and fills in the
// completion.
func (x *ringOp) alloc(v resource, o api.AllocOptions) (*mpool.Mblock, error) {
	p, ok := v.(*poolRef)
	if !ok {
		panic("server: a handle's kind and its value do not agree")
	}
	if err := p.mustWrite(); err != nil {
		return nil, err
	}
	engine, ok := p.pool.pool.(allocator)
	if view, _ := p.pool.ownership.get(); !ok || view == nil {
		return nil, errSlow // who acts for whom is to be read
	}
	set := x.ring.set
	r := &set.asks
	*r = request{s: set.s, op: ioctl.Op(x.d.Op), ctx: set.s.ctx, fd: -1}
	m := ioctl.Alloc{Options: o}
	if err := r.mustMayAlloc(p, &m); err != nil {
		return nil, err
	}
	b, err := engine.TryAllocMblock(m.Options)
	if err != nil {
		return nil, slowIf(err)
	}
	opened, ref, err := r.born(p, b)
	if err != nil {
		return nil, err
	}
	x.c, x.obj, x.made = completionOf(opened), ref, opened.Handle
	return b, nil
}

// isForLoop says whether an operation's handle, as its number says, is of a kind
// that the loop does it for.
func (x *ringOp) isForLoop() bool {
	if x.verb != verbClose {
		return true // or it is a bad handle
	}
	k := uhandle.Handle(x.d.Handle).Kind()
	return k == kindMblock || k == kindMlog
}

// startClose gives up a handle on an object, as closeHandle does.
func (x *ringOp) startClose(e *uhandle.Entry[resource]) error {
	s, v := x.ring.set.s, e.Value
	o, ok := v.(*objectRef)
	if !ok {
		panic("server: a handle's kind and its value do not agree")
	}
	if !o.ofEngine() {
		return errSlow
	}
	if !s.table.End(e) || !v.taken() {
		return closedMeanwhile()
	}
	err := s.closeResource(s.ctx, v)
	if err == nil {
		x.end(nil)
	}
	return err
}

// ofEngine says whether the object is one of package mpool, which gives back a
// reference on it without waiting.
func (o *objectRef) ofEngine() bool {
	switch o.obj.(type) {
	case *mpool.Mblock, *mpool.Mlog:
		return true
	}
	return false
}

// moved returns how many bytes of data an operation has moved.
func (x *ringOp) moved(err error) uint64 {
	switch {
	case err != nil:
		return 0
	case x.verb == verbPut:
		return uint64(x.d.Length)
	case x.verb == verbAlloc:
		return 0
	}
	return uint64(x.c.N)
}
