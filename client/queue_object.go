package client

import (
	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// Alloc allocates an mblock, whose handle is in the completion; see
// [api.Pool.AllocMblock]. The first call for a pool after a reconnection opens it,
// and waits for that.
func (q *Queue) Alloc(p api.Pool, o api.AllocOptions, user uint64) error {
	return q.allocate(ioctl.OpMblockAlloc, p, o, nil, user)
}

// PutMblock allocates an mblock, writes b.Len() bytes and commits it; see
// [api.Pool.PutMblock]. The completion has its handle. As Alloc.
func (q *Queue) PutMblock(p api.Pool, o api.AllocOptions, b *Buffer, user uint64) error {
	return q.allocate(ioctl.OpMblockPut, p, o, b, user)
}

func (q *Queue) allocate(op ioctl.Op, p api.Pool, o api.AllocOptions, b *Buffer, user uint64) error {
	if err := q.ready(op); err != nil {
		return err
	}
	x, ok := p.(*pool)
	if !ok || x.c != q.c {
		return alien(op)
	}
	if err := x.live(op); err != nil {
		return err
	}
	h, there := x.have(q.l)
	if !there {
		ctx, cancel := polite()
		defer cancel()
		var err error
		if h, err = x.onLink(ctx, op, q.l); err != nil {
			return x.orStale(op, err)
		}
	}
	if op == ioctl.OpMblockPut {
		if err := q.take(op, b); err != nil {
			return err
		}
		if o.Capacity == 0 {
			o.Capacity = int64(b.Len())
		}
	}
	var d ring.Descriptor
	setAllocation(&d, op, h, &o)
	q.put(&d, b, queueSlot{user: user, op: op, p: x, capacity: o.Capacity})
	return nil
}

// orStale is the error of a pool that could not be opened because the connection
// is gone.
func (*pool) orStale(op ioctl.Op, err error) error {
	if lostIn(err) != nil {
		return stale(op)
	}
	return err
}

// made makes the mblock that a completion says was made.
func (q *Queue) made(s *queueSlot, c *ring.Completion) *mblock {
	got := opened{l: q.l, p: s.p, Opened: openedIn(c)}
	m := got.mblock()
	m.capacity = s.capacity
	if s.op == ioctl.OpMblockPut {
		m.written.Store(int64(s.length))
	}
	return m
}

// Commit commits an mblock, with all writes that the queue was given before; see
// [api.Object.Commit]. ESTATE, or EIO if the device failed it: one of those has failed, and nothing is committed. If the connection breaks it is EUNKNOWN: to find the mblock
// by its id tells.
func (q *Queue) Commit(m api.Mblock, user uint64) error {
	const op = ioctl.OpObjectCommit
	x, err := q.mblock(op, m)
	if err != nil {
		return err
	}
	if err := x.sound(op); err != nil {
		return err
	}
	d := ring.Descriptor{Op: uint16(op), Flags: ring.FlagChained, Handle: uint64(x.h), Offset: x.failed.Load()}
	q.put(&d, nil, queueSlot{user: user, op: op, m: x})
	return nil
}

// Release gives the handle on an mblock up, as [api.Object.Put] does. It must not
// be used from now on.
func (q *Queue) Release(m api.Mblock, user uint64) error {
	const op = ioctl.OpClose
	x, err := q.mblock(op, m)
	if err != nil {
		return err
	}
	if err := x.live(op); err != nil {
		return err
	}
	if x.ended.Swap(true) {
		return api.Errorf(api.EBADF, op.Name(), "the handle was given up before")
	}
	x.ahead.end(x)
	if on, ok := m.(*cachedMblock); ok && !on.ended.Swap(true) {
		on.unpin()
	}
	q.put(&ring.Descriptor{Op: uint16(op), Handle: uint64(x.h)}, nil, queueSlot{user: user, op: op})
	return nil
}

// mblock returns an mblock of the queue's connection.
func (q *Queue) mblock(op ioctl.Op, m api.Mblock) (*mblock, error) {
	if err := q.ready(op); err != nil {
		return nil, err
	}
	return q.own(op, m)
}

// own returns the daemon's handle on an mblock of the queue's connection.
func (q *Queue) own(op ioctl.Op, m api.Mblock) (*mblock, error) {
	var x *mblock
	switch m := m.(type) {
	case *mblock:
		x = m
	case *cachedMblock:
		ctx, cancel := polite()
		defer cancel()
		var err error
		if x, err = m.open(ctx, op); err != nil {
			return nil, err
		}
	}
	if x == nil || x.l != q.l {
		return nil, alien(op)
	}
	return x, nil
}
