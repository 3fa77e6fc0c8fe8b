package client

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// handle is one of a session's handles. It ends with its connection.
type handle struct {
	l     *link
	h     ioctl.Handle
	ended atomic.Bool
}

// live refuses the use of a handle that was given up, or whose connection is
// gone.
func (h *handle) live(op ioctl.Op) error {
	if h.ended.Load() {
		return api.Errorf(api.EBADF, op.Name(), "the handle was given up")
	}
	if h.l.over.Load() {
		return stale(op)
	}
	return nil
}

// exchange makes a request about the handle; see [link.exchange].
func (h *handle) exchange(ctx context.Context, op ioctl.Op, m, reply ioctl.Message, hold *region, read func()) error {
	if err := h.live(op); err != nil {
		return err
	}
	return h.orStale(op, h.l.exchange(ctx, op, m, reply, hold, read))
}

// orStale is the error of a request about the handle: EBADF if the connection
// was gone before it was sent.
func (*handle) orStale(op ioctl.Op, err error) error {
	if e := lostIn(err); e != nil && !e.sent {
		return stale(op)
	}
	return err
}

// ask makes a request about the handle.
func (h *handle) ask(ctx context.Context, op ioctl.Op, m, reply ioctl.Message) error {
	return h.exchange(ctx, op, m, reply, nil, nil)
}

// do makes a request about the handle that has no reply.
func (h *handle) do(ctx context.Context, op ioctl.Op) error {
	return h.ask(ctx, op, &ioctl.Target{Handle: h.h}, &ioctl.Empty{})
}

// close gives the handle up; it has ended whatever the error. When the
// connection is gone there is nothing to give up.
func (h *handle) close() error {
	return h.closeBy(func(ctx context.Context, op ioctl.Op) error {
		return h.l.do(ctx, op, &ioctl.Target{Handle: h.h}, &ioctl.Empty{})
	})
}

// closeBy is close by the request that is given.
func (h *handle) closeBy(ask func(ctx context.Context, op ioctl.Op) error) error {
	if h.ended.Swap(true) {
		return api.Errorf(api.EBADF, ioctl.OpClose.Name(), "the handle was given up before")
	}
	if h.l.over.Load() {
		return nil
	}
	ctx, cancel := polite()
	defer cancel()
	err := ask(ctx, ioctl.OpClose)
	if lostIn(err) != nil {
		return nil
	}
	return err
}

// closeLog gives up a handle whose close also syncs what was appended.
func (h *handle) closeLog(ctx context.Context) error {
	const op = ioctl.OpClose
	if h.ended.Swap(true) {
		return api.Errorf(api.EBADF, op.Name(), "the handle was given up before")
	}
	if h.l.over.Load() {
		return stale(op)
	}
	err := h.l.do(ctx, op, &ioctl.Target{Handle: h.h}, &ioctl.Empty{})
	switch e := lostIn(err); {
	case e == nil:
		return err
	case e.sent:
		return unknown(op, err)
	}
	return stale(op)
}

// polite is the context of calls that take none.
func polite() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), courtesy)
}

// putBack gives a handle up that the library took for itself. If the daemon
// does not hear it, the connection's end does the same.
func (l *link) putBack(ctx context.Context, h ioctl.Handle) {
	done := make(chan struct{})
	if !l.spawn(func() {
		defer close(done)
		ctx, cancel := polite()
		defer cancel()
		//nolint:errcheck // what to do if it is not heard: nothing, as said above
		_ = l.do(ctx, ioctl.OpClose, &ioctl.Target{Handle: h}, &ioctl.Empty{})
	}) {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// object is what mblocks and mlogs have in common.
type object struct {
	handle
	p       *pool
	id      layout.ObjectID
	created time.Time // zero: not known
}

// opened is an object's handle as the daemon gave it.
type opened struct {
	l *link
	p *pool
	ioctl.Opened
}

// mblock makes an mblock of it.
func (o *opened) mblock() *mblock {
	return &mblock{
		object:  object{handle: handle{l: o.l, h: o.Handle}, p: o.p, id: o.ID, created: o.Created},
		writing: make(chan struct{}, 1),
	}
}

// mlog makes an mlog of it.
func (o *opened) mlog() *mlog {
	return &mlog{object{handle: handle{l: o.l, h: o.Handle}, p: o.p, id: o.ID, created: o.Created}}
}

// ID implements [api.Object].
func (o *object) ID() layout.ObjectID { return o.id }

// Info implements [api.Object].
func (o *object) Info(ctx context.Context) (api.ObjectInfo, error) {
	const op = ioctl.OpObjectInfo
	reply := &ioctl.ObjectReply{}
	err := o.ask(ctx, op, &ioctl.Target{Handle: o.h}, reply)
	if lostIn(err) != nil {
		err = o.elsewhere(ctx, op, err, func(h *handle) error {
			return h.l.do(ctx, op, &ioctl.Target{Handle: h.h}, reply)
		})
	}
	return reply.Info, err
}

// get returns another handle on the object.
func (o *object) get(ctx context.Context) (*opened, error) {
	const op = ioctl.OpObjectGet
	got := &opened{l: o.l, p: o.p}
	err := o.ask(ctx, op, &ioctl.Target{Handle: o.h}, &got.Opened)
	if lostIn(err) == nil {
		return got, err
	}
	err = o.p.run(ctx, op, again, func(l *link, pool ioctl.Handle) error {
		reply, err := o.refind(ctx, op, l, pool)
		if err == nil {
			got.l, got.Opened = l, *reply
		}
		return err
	})
	return got, err
}

// end makes a request that ends the handle if it succeeds; while it is under
// way nobody else can end it. If the answer is lost and the object is still
// there, committed, it returns there.
func (o *object) end(ctx context.Context, op ioctl.Op, there error) (err error) {
	if o.ended.Swap(true) {
		return api.Errorf(api.EBADF, op.Name(), "the handle was given up")
	}
	defer func() {
		if err != nil {
			o.ended.Store(false) // for Put
		}
	}()
	if o.l.over.Load() {
		return stale(op)
	}
	err = o.l.do(ctx, op, &ioctl.Target{Handle: o.h}, &ioctl.Empty{})
	switch e := lostIn(err); {
	case e == nil:
		return err
	case !e.sent:
		return stale(op)
	}
	return o.outcome(ctx, op, err, there, nil)
}

// Abort implements [api.Object].
func (o *object) Abort(ctx context.Context) error {
	return o.end(ctx, ioctl.OpObjectAbort, api.Errorf(api.ESTATE, ioctl.OpObjectAbort.Name(), "the object is committed"))
}

// Delete implements [api.Object].
func (o *object) Delete(ctx context.Context) error { return o.delete(ctx, 0) }

// commit commits the object.
func (o *object) commit(ctx context.Context) error {
	const op = ioctl.OpObjectCommit
	err := o.live(op)
	if err == nil {
		err = o.orStale(op, o.tell(ctx, op))
	}
	if lostIn(err) == nil {
		return err
	}
	return o.outcome(ctx, op, err, nil, undone(op, "the uncommitted object is gone"))
}
