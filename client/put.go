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

// undoing returns the operation that gives up what another one made and nobody knows
// of: an object that is not committed would stay as long as the connection.
func undoing(op ioctl.Op) ioctl.Op {
	if op == ioctl.OpMblockAlloc || op == ioctl.OpMlogAlloc {
		return ioctl.OpObjectAbort
	}
	return ioctl.OpClose
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
		q := request{soon: true}
		setAllocation(&q.Descriptor, op, pool, o)
		if err := r.alloc(ctx, &q, reply); err != errNoSlot { //nolint:errorlint // it is returned bare
			return err
		}
	}
	return l.do(ctx, op, &ioctl.Alloc{Pool: pool, Options: *o}, reply)
}

// follow waits for the answer of a request that makes an object, in the place of its
// caller, who does not wait any more, and gives the handle in it back. false: the
// connection is gone.
func (r *sharedRing) follow(s *slot) bool {
	r.mu.Lock()
	s.who = nil // its caller is somebody else's soon
	undo := undoing(s.op)
	r.mu.Unlock()
	return r.l.spawn(func() {
		w := getCaller()
		defer putCaller(w)
		r.wait(context.Background(), w, s)
		c, err := s.answer(context.Background())
		r.finish(s)
		if err != nil {
			return
		}
		ctx, cancel := polite()
		defer cancel()
		//nolint:errcheck // if the daemon does not hear it, the connection's end does the same
		_ = r.l.do(ctx, undo, &ioctl.Target{Handle: openedIn(&c).Handle}, &ioctl.Empty{})
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
	if r := l.ring(); r != nil {
		if err := r.putMblock(ctx, pool, o, data, reply); err != errNoSlot { //nolint:errorlint // it is returned bare
			return err
		}
	}
	m := &ioctl.MblockPut{Pool: pool, Options: *o}
	hold, err := l.load(ctx, op, data, &m.Data)
	if err != nil {
		return orNoRegion(err)
	}
	defer hold.release()
	return l.exchange(ctx, op, m, reply, hold, nil)
}

// putMblock is putOn over the ring.
func (r *sharedRing) putMblock(ctx context.Context, pool ioctl.Handle, o *api.AllocOptions, data []byte, reply *ioctl.Opened) error {
	const op = ioctl.OpMblockPut
	q := request{soon: true}
	setAllocation(&q.Descriptor, op, pool, o)
	q.Length = uint32(len(data))
	if len(data) <= page {
		q.data = data
	} else {
		hold, err := r.l.region(ctx, op, len(data))
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
// is one already.
func (o *object) tell(ctx context.Context, op ioctl.Op) error {
	if r := o.l.shared.Load(); r != nil {
		q := request{Descriptor: ring.Descriptor{Op: uint16(op), Handle: uint64(o.h)}, soon: true}
		if err := r.one(ctx, &q, nil); err != errNoSlot { //nolint:errorlint // it is returned bare
			return err
		}
	}
	return o.l.do(ctx, op, &ioctl.Target{Handle: o.h}, &ioctl.Empty{})
}

// Put implements [api.Object].
func (o *object) Put() error { return o.closeBy(o.tell) }
