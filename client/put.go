package client

import (
	"context"
	"errors"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
	"github.com/mpool-go/mpool/layout"
)

// setAllocation makes a descriptor that of an allocation.
func setAllocation(d *ring.Descriptor, op ioctl.Op, pool ioctl.Handle, o *api.AllocOptions) {
	d.Op, d.Handle, d.Offset = uint16(op), uint64(pool), o.Capacity
	d.Class, d.Owner, d.Label = uint8(o.Class), o.Owner, o.Tag
	if o.Fallback {
		d.Flags |= ring.FlagFallback
	}
	if o.UseSpare {
		d.Flags |= ring.FlagSpare
	}
}

// allocates says whether an operation's completion is an object's handle.
func allocates(op ioctl.Op) bool { return op == ioctl.OpMblockAlloc || op == ioctl.OpMblockPut }

// openedIn returns what a completion of an allocation says.
func openedIn(c *ring.Completion) ioctl.Opened {
	m := ioctl.Opened{Handle: ioctl.Handle(c.A), ID: layout.ObjectID(c.B)}
	if ms := int64(c.Flags)<<32 | int64(c.N); ms != 0 {
		m.Created = time.UnixMilli(ms)
	}
	return m
}

// alloc makes a request that gives an object's handle, over the ring.
func (r *sharedRing) alloc(ctx context.Context, q *request, reply *ioctl.Opened) error {
	return r.one(ctx, q, func(_ *slot, c ring.Completion) { *reply = openedIn(&c) })
}

// allocOn allocates an mblock on a connection.
func (l *link) allocOn(ctx context.Context, pool ioctl.Handle, o *api.AllocOptions, reply *ioctl.Opened) error {
	const op = ioctl.OpMblockAlloc
	if r := l.ring(); r != nil {
		var q request
		setAllocation(&q.Descriptor, op, pool, o)
		return r.alloc(ctx, &q, reply)
	}
	return l.do(ctx, op, &ioctl.Alloc{Pool: pool, Options: *o}, reply)
}

// stray gives back the handle in an answer that nobody waits for any more.
//
// +checklocks:r.mu
func (r *sharedRing) stray(s *slot) {
	if !allocates(s.op) || s.err != nil || s.buf != nil || r.dead != nil {
		return
	}
	h := ioctl.Handle(s.c.A)
	// The receiver runs: it ends after dead is set.
	r.l.wg.Go(func() {
		ctx, cancel := polite()
		defer cancel()
		//nolint:errcheck // if the daemon does not hear it, the connection's end does the same
		_ = r.l.do(ctx, ioctl.OpClose, &ioctl.Target{Handle: h}, &ioctl.Empty{})
	})
}

// PutMblock implements [api.Pool]. What is longer than 1 MiB takes three requests.
func (p *pool) PutMblock(ctx context.Context, o api.AllocOptions, data []byte) (api.Mblock, error) {
	const op = ioctl.OpMblockPut
	if o.Capacity == 0 {
		o.Capacity = int64(len(data))
	}
	got, err := &opened{p: p}, errNoRegion
	if len(data) <= chunk {
		err = p.run(ctx, op, once, func(l *link, h ioctl.Handle) error {
			got.l = l
			return l.putOn(ctx, h, &o, data, &got.Opened)
		})
	}
	if errors.Is(err, errNoRegion) {
		return p.putParts(ctx, o, data)
	}
	if err != nil {
		return nil, err
	}
	m := got.mblock()
	m.capacity = o.Capacity
	m.written.Store(int64(len(data)))
	return m, nil
}

// putOn makes one request of it on a connection: over the ring if there is one.
// errNoRegion, and nothing was asked for, if there is no memory for the data.
func (l *link) putOn(ctx context.Context, pool ioctl.Handle, o *api.AllocOptions, data []byte, reply *ioctl.Opened) error {
	const op = ioctl.OpMblockPut
	r := l.ring()
	if r == nil {
		m := &ioctl.MblockPut{Pool: pool, Options: *o}
		hold, err := l.load(ctx, op, data, &m.Data)
		if err != nil {
			return orNoRegion(err)
		}
		defer hold.release()
		return l.exchange(ctx, op, m, reply, hold, nil)
	}
	var q request
	setAllocation(&q.Descriptor, op, pool, o)
	q.Length = uint32(len(data))
	if len(data) <= page {
		q.data = data
	} else {
		hold, err := l.region(ctx, op, len(data))
		if err != nil {
			return orNoRegion(err)
		}
		copy(hold.mem, data)
		w := hold.window(len(data))
		q.Arena, q.Window, q.hold = w.Arena, w.Offset, hold
	}
	return r.alloc(ctx, &q, reply)
}

func orNoRegion(err error) error {
	if errors.Is(err, api.ENOMEM) {
		return errNoRegion
	}
	return err
}

// putParts is PutMblock in three requests, or more.
func (p *pool) putParts(ctx context.Context, o api.AllocOptions, data []byte) (api.Mblock, error) {
	m, err := p.AllocMblock(ctx, o)
	if err != nil {
		return nil, err
	}
	_, err = m.Write(ctx, data)
	if err == nil {
		err = m.Commit(ctx)
	}
	if err == nil {
		return m, nil
	}
	end, cancel := polite()
	defer cancel()
	if api.CodeOf(err) == api.EUNKNOWN || m.Abort(end) != nil {
		_ = m.Put() //nolint:errcheck // the connection's end does the same
	}
	return nil, err
}

// tell makes a request about the object that has no reply: over the ring if there
// is one.
func (o *object) tell(ctx context.Context, op ioctl.Op) error {
	r := o.l.ring()
	if r == nil {
		return o.l.do(ctx, op, &ioctl.Target{Handle: o.h}, &ioctl.Empty{})
	}
	q := request{Descriptor: ring.Descriptor{Op: uint16(op), Handle: uint64(o.h)}}
	return r.one(ctx, &q, nil)
}

// Put implements [api.Object].
func (o *object) Put() error { return o.closeBy(o.tell) }
