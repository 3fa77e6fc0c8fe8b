package client

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// handle is one of the session's handles.
type handle struct {
	c     *Conn
	h     ioctl.Handle
	ended atomic.Bool
}

// live refuses the use of a handle that was given up.
func (h *handle) live(op ioctl.Op) error {
	if h.ended.Load() {
		return api.Errorf(api.EBADF, op.Name(), "the handle was given up")
	}
	return nil
}

// do makes a request about the handle that has no reply.
func (h *handle) do(ctx context.Context, op ioctl.Op) error {
	if err := h.live(op); err != nil {
		return err
	}
	return h.c.do(ctx, op, &ioctl.Target{Handle: h.h}, &ioctl.Empty{})
}

// close gives the handle up. It has ended whatever the error, unless refused
// says that the daemon would not.
func (h *handle) close(ctx context.Context, refused api.Code) error {
	if h.ended.Swap(true) {
		return api.Errorf(api.EBADF, ioctl.OpClose.Name(), "the handle was given up before")
	}
	err := h.c.do(ctx, ioctl.OpClose, &ioctl.Target{Handle: h.h}, &ioctl.Empty{})
	if refused != 0 && errors.Is(err, refused) {
		h.ended.Store(false)
	}
	return err
}

// polite is the context of calls that take none.
func polite() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), courtesy)
}

// pool implements [api.Pool].
type pool struct{ handle }

// Info implements [api.Pool].
func (p *pool) Info(ctx context.Context) (api.PoolInfo, error) {
	if err := p.live(ioctl.OpPoolShow); err != nil {
		return api.PoolInfo{}, err
	}
	return p.c.show(ctx, ioctl.PoolShow{Pool: p.h})
}

// open makes a request that gives a handle.
func (p *pool) open(ctx context.Context, op ioctl.Op, m ioctl.Message) (*ioctl.Opened, error) {
	reply := &ioctl.Opened{}
	if err := p.live(op); err != nil {
		return nil, err
	}
	return reply, p.c.do(ctx, op, m, reply)
}

// AllocMblock implements [api.Pool].
func (p *pool) AllocMblock(ctx context.Context, o api.AllocOptions) (api.Mblock, error) {
	return p.openMblock(ctx, ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: p.h, Options: o})
}

// ReallocMblock implements [api.Pool].
func (p *pool) ReallocMblock(ctx context.Context, id layout.ObjectID, o api.AllocOptions) (api.Mblock, error) {
	if id == 0 {
		return nil, api.Errorf(api.EINVAL, "mblock realloc", "not an mblock's id")
	}
	return p.openMblock(ctx, ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: p.h, ID: id, Options: o})
}

// Mblock implements [api.Pool].
func (p *pool) Mblock(ctx context.Context, id layout.ObjectID) (api.Mblock, error) {
	return p.openMblock(ctx, ioctl.OpMblockFind, &ioctl.Find{Pool: p.h, ID: id})
}

func (p *pool) openMblock(ctx context.Context, op ioctl.Op, m ioctl.Message) (api.Mblock, error) {
	reply, err := p.open(ctx, op, m)
	if err != nil {
		return nil, err
	}
	return newMblock(p.c, reply), nil
}

// AllocMlog implements [api.Pool].
func (p *pool) AllocMlog(ctx context.Context, o api.AllocOptions) (api.Mlog, error) {
	return p.openMlog(ctx, ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: p.h, Options: o})
}

// Mlog implements [api.Pool].
func (p *pool) Mlog(ctx context.Context, id layout.ObjectID) (api.Mlog, error) {
	return p.openMlog(ctx, ioctl.OpMlogFind, &ioctl.Find{Pool: p.h, ID: id})
}

func (p *pool) openMlog(ctx context.Context, op ioctl.Op, m ioctl.Message) (api.Mlog, error) {
	reply, err := p.open(ctx, op, m)
	if err != nil {
		return nil, err
	}
	return newMlog(p.c, reply), nil
}

// CreateMDC implements [api.Pool].
func (p *pool) CreateMDC(ctx context.Context, o api.AllocOptions) (layout.ObjectID, error) {
	if err := p.live(ioctl.OpMDCCreate); err != nil {
		return 0, err
	}
	reply := &ioctl.MDCCreated{}
	err := p.c.do(ctx, ioctl.OpMDCCreate, &ioctl.Alloc{Pool: p.h, Options: o}, reply)
	return reply.ID, err
}

// OpenMDC implements [api.Pool].
func (p *pool) OpenMDC(ctx context.Context, id layout.ObjectID) (api.MDC, error) {
	reply, err := p.open(ctx, ioctl.OpMDCOpen, &ioctl.Find{Pool: p.h, ID: id})
	if err != nil {
		return nil, err
	}
	return &mdc{handle: handle{c: p.c, h: reply.Handle}}, nil
}

// DeleteMDC implements [api.Pool].
func (p *pool) DeleteMDC(ctx context.Context, id layout.ObjectID) error {
	if err := p.live(ioctl.OpMDCDelete); err != nil {
		return err
	}
	return p.c.do(ctx, ioctl.OpMDCDelete, &ioctl.Find{Pool: p.h, ID: id}, &ioctl.Empty{})
}

// holder is what mblocks and mlogs of this package have in common.
type holder interface {
	held() *handle
	// sound refuses a commit of what should not be committed.
	sound(op ioctl.Op) error
}

func (h *handle) held() *handle           { return h }
func (h *handle) sound(op ioctl.Op) error { return h.live(op) }

// CommitMany implements [api.Pool].
func (p *pool) CommitMany(ctx context.Context, objects []api.Object, roots []api.Root) error {
	const op = ioctl.OpCommitMany
	if err := p.live(op); err != nil {
		return err
	}
	m := &ioctl.CommitMany{Pool: p.h, Objects: make([]ioctl.Handle, len(objects))}
	for i, o := range objects {
		x, ok := o.(holder)
		if !ok || x.held().c != p.c {
			return api.Errorf(api.EINVAL, op.Name(), "object %d is not of this connection", i)
		}
		if err := x.sound(op); err != nil {
			return err
		}
		m.Objects[i] = x.held().h
	}
	return p.withRoots(ctx, op, roots, &m.Roots, m)
}

// SetRoots implements [api.Pool].
func (p *pool) SetRoots(ctx context.Context, roots []api.Root) error {
	const op = ioctl.OpRootsSet
	if err := p.live(op); err != nil {
		return err
	}
	m := &ioctl.RootsSet{Pool: p.h}
	return p.withRoots(ctx, op, roots, &m.Roots, m)
}

// withRoots makes a request that carries roots in payload.
func (p *pool) withRoots(ctx context.Context, op ioctl.Op, roots []api.Root, payload *ioctl.Payload, m ioctl.Message) error {
	var b []byte
	if len(roots) > 0 {
		var err error
		if b, err = ioctl.AppendRoots(nil, roots); err != nil {
			return &api.Error{Code: api.EINVAL, Op: op.Name(), Err: err}
		}
	}
	hold, err := p.c.load(ctx, op, b, payload)
	if err != nil {
		return err
	}
	defer hold.release()
	return p.c.exchange(ctx, op, m, &ioctl.Empty{}, hold, nil)
}

// Roots implements [api.Pool].
func (p *pool) Roots(ctx context.Context) ([]api.Root, error) {
	if err := p.live(ioctl.OpRootsList); err != nil {
		return nil, err
	}
	var roots []api.Root
	ask := &ioctl.RootsList{Pool: p.h}
	for {
		reply := &ioctl.RootsReply{}
		if err := p.c.do(ctx, ioctl.OpRootsList, ask, reply); err != nil {
			return nil, err
		}
		roots = append(roots, reply.Roots...)
		if !reply.More || len(reply.Roots) == 0 {
			return roots, nil
		}
		ask.After = roots[len(roots)-1].Name
	}
}

// Objects implements [api.Pool].
func (p *pool) Objects(ctx context.Context, f api.Filter) iter.Seq2[api.ObjectInfo, error] {
	return func(yield func(api.ObjectInfo, error) bool) {
		reply, err := p.open(ctx, ioctl.OpListOpen, &ioctl.ListOpen{Pool: p.h, Filter: f})
		if err != nil {
			yield(api.ObjectInfo{}, err)
			return
		}
		list := &handle{c: p.c, h: reply.Handle}
		defer func() {
			ctx, cancel := polite()
			defer cancel()
			// If the daemon does not hear it, the connection's end does the same.
			_ = list.close(ctx, 0)
		}()
		for more := true; more; {
			next := &ioctl.ListReply{}
			if err := p.c.do(ctx, ioctl.OpListNext, &ioctl.Target{Handle: list.h}, next); err != nil {
				yield(api.ObjectInfo{}, err)
				return
			}
			for i := range next.Objects {
				if !yield(next.Objects[i], nil) {
					return
				}
			}
			more = next.More
		}
	}
}

// AddOwner implements [api.Pool].
func (p *pool) AddOwner(ctx context.Context, name string, parent uint32) (uint32, error) {
	if err := p.live(ioctl.OpOwnerAdd); err != nil {
		return 0, err
	}
	reply := &ioctl.OwnerAdded{}
	err := p.c.do(ctx, ioctl.OpOwnerAdd, &ioctl.OwnerAdd{Pool: p.h, Parent: parent, Name: name}, reply)
	return reply.Index, err
}

// Owners implements [api.Pool].
func (p *pool) Owners(ctx context.Context) ([]api.Owner, error) {
	if err := p.live(ioctl.OpOwnerList); err != nil {
		return nil, err
	}
	var owners []api.Owner
	ask := &ioctl.OwnerList{Pool: p.h}
	for {
		reply := &ioctl.OwnersReply{}
		if err := p.c.do(ctx, ioctl.OpOwnerList, ask, reply); err != nil {
			return nil, err
		}
		owners = append(owners, reply.Owners...)
		if !reply.More || len(reply.Owners) == 0 {
			return owners, nil
		}
		ask.From = owners[len(owners)-1].Index + 1
	}
}

// Close implements [api.Pool]: it gives up the handle, not the pool. EBUSY
// while handles that were opened through it are in use.
func (p *pool) Close() error {
	ctx, cancel := polite()
	defer cancel()
	return p.close(ctx, api.EBUSY)
}
