package client

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// pool implements [api.Pool]. It outlives connections: on each it is opened
// again when it is needed, by its name, and must be the same.
type pool struct {
	c      *Conn
	name   string
	uuid   string
	closed atomic.Bool
	turn   chan struct{} // a token while it is being opened

	mu sync.Mutex
	// +checklocks:mu
	on *link // the connection that h is of
	// +checklocks:mu
	h ioctl.Handle
}

// newPool makes a pool of a handle, which it asks for the pool's identity.
func newPool(ctx context.Context, c *Conn, l *link, h ioctl.Handle) (*pool, error) {
	reply := &ioctl.PoolReply{}
	if err := l.do(ctx, ioctl.OpPoolShow, &ioctl.PoolShow{Pool: h}, reply); err != nil {
		l.putBack(ctx, h)
		return nil, err
	}
	return &pool{
		c: c, name: reply.Info.Name, uuid: reply.Info.UUID, turn: make(chan struct{}, 1), on: l, h: h,
	}, nil
}

// live refuses the use of a handle that was given up.
func (p *pool) live(op ioctl.Op) error {
	if p.closed.Load() {
		return api.Errorf(api.EBADF, op.Name(), "the handle was given up")
	}
	return nil
}

// run is [Conn.run] with a handle of the pool on the connection.
func (p *pool) run(ctx context.Context, op ioctl.Op, m mode, f func(l *link, h ioctl.Handle) error) error {
	if err := p.live(op); err != nil {
		return err
	}
	return p.c.run(ctx, op, m, func(l *link) error {
		h, err := p.onLink(ctx, op, l)
		if err != nil {
			return err
		}
		return f(l, h)
	})
}

// onLink returns the pool's handle on a connection. If it is lost the caller's
// own request was not sent.
func (p *pool) onLink(ctx context.Context, op ioctl.Op, l *link) (ioctl.Handle, error) {
	if h, ok := p.have(l); ok {
		return h, nil
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return 0, expired(ctx, op.Name())
	}
	if h, ok := p.have(l); ok {
		return h, nil
	}
	h, err := p.openOn(ctx, op, l)
	if e := lostIn(err); e != nil {
		return 0, unsent(op, e.cause)
	}
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	p.on, p.h = l, h
	p.mu.Unlock()
	if p.closed.Load() { // and whoever closed it did not know of this handle
		l.putBack(ctx, h)
		return 0, p.live(op)
	}
	return h, nil
}

// have returns the handle on a connection if there is one.
func (p *pool) have(l *link) (ioctl.Handle, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.h, p.on == l
}

// openOn opens the pool on another connection.
func (p *pool) openOn(ctx context.Context, op ioctl.Op, l *link) (ioctl.Handle, error) {
	reply := &ioctl.Opened{}
	err := l.do(ctx, ioctl.OpPoolOpen, &ioctl.PoolName{Name: p.name}, reply)
	if errors.Is(err, api.ENOENT) {
		// To the caller ENOENT would mean what was asked for in the pool.
		err = api.Errorf(api.EBADF, op.Name(), "the daemon has no active pool %q any more", p.name)
	}
	if err != nil {
		return 0, err
	}
	show := &ioctl.PoolReply{}
	err = l.do(ctx, ioctl.OpPoolShow, &ioctl.PoolShow{Pool: reply.Handle}, show)
	if err == nil && show.Info.UUID != p.uuid {
		err = api.Errorf(api.EBADF, op.Name(), "the pool that is called %q now is another one than when it was opened", p.name)
	}
	if err != nil {
		l.putBack(ctx, reply.Handle)
		return 0, err
	}
	return reply.Handle, nil
}

// Close implements [api.Pool]: it gives up the handle, not the pool. EBUSY
// while handles that were opened through it are in use.
func (p *pool) Close() error {
	const op = ioctl.OpClose
	if p.closed.Swap(true) {
		return api.Errorf(api.EBADF, op.Name(), "the handle was given up before")
	}
	p.mu.Lock()
	l, h := p.on, p.h
	p.mu.Unlock()
	if l.over.Load() {
		return nil // it went with its connection
	}
	if c := l.credits.of(p); c != nil && c.held() {
		p.closed.Store(false)
		return api.Errorf(api.EBUSY, op.Name(), "credits are held through it, by the program or by mblocks that are open: release them")
	}
	ctx, cancel := polite()
	defer cancel()
	err := l.do(ctx, op, &ioctl.Target{Handle: h}, &ioctl.Empty{})
	switch {
	case lostIn(err) != nil:
		return nil
	case api.CodeOf(err) == api.EBUSY:
		p.closed.Store(false)
	default:
		l.credits.leave(p)
	}
	return err
}

// Info implements [api.Pool].
func (p *pool) Info(ctx context.Context) (info api.PoolInfo, err error) {
	err = p.run(ctx, ioctl.OpPoolShow, again, func(l *link, h ioctl.Handle) error {
		info, err = l.show(ctx, ioctl.PoolShow{Pool: h})
		return err
	})
	return info, err
}

// open makes a request that gives an object's handle.
func (p *pool) open(ctx context.Context, op ioctl.Op, how mode, m func(pool ioctl.Handle) ioctl.Message) (*opened, error) {
	o := &opened{p: p}
	err := p.run(ctx, op, how, func(l *link, h ioctl.Handle) error {
		o.l = l
		return l.do(ctx, op, m(h), &o.Opened)
	})
	return o, err
}

// find makes a request that gives a handle on an object of an id.
func (p *pool) find(ctx context.Context, op ioctl.Op, id layout.ObjectID) (*opened, error) {
	return p.open(ctx, op, again, func(h ioctl.Handle) ioctl.Message { return &ioctl.Find{Pool: h, ID: id} })
}

// alloc makes a request that allocates an object. If it is lost it has left
// nothing, but it is not made again: that is for who knows whether it is still
// of use.
func (p *pool) alloc(ctx context.Context, op ioctl.Op, id layout.ObjectID, o api.AllocOptions) (*opened, error) {
	if op == ioctl.OpMblockAlloc && id == 0 {
		got := &opened{p: p}
		err := p.run(ctx, op, once, func(l *link, h ioctl.Handle) error {
			got.l = l
			return l.allocOn(ctx, h, &o, &got.Opened)
		})
		return got, err
	}
	return p.open(ctx, op, once, func(h ioctl.Handle) ioctl.Message { return &ioctl.Alloc{Pool: h, ID: id, Options: o} })
}

// mblockOf is the end of a call that gives an mblock.
func mblockOf(o *opened, err error) (api.Mblock, error) {
	if err != nil {
		return nil, err
	}
	return o.mblock(), nil
}

// mlogOf is the end of a call that gives an mlog.
func mlogOf(o *opened, err error) (api.Mlog, error) {
	if err != nil {
		return nil, err
	}
	return o.mlog(), nil
}

// AllocMblock implements [api.Pool].
func (p *pool) AllocMblock(ctx context.Context, o api.AllocOptions) (api.Mblock, error) {
	return p.allocMblock(ctx, 0, o)
}

func (p *pool) allocMblock(ctx context.Context, id layout.ObjectID, o api.AllocOptions) (api.Mblock, error) {
	got, err := p.alloc(ctx, ioctl.OpMblockAlloc, id, o)
	if err != nil {
		return nil, err
	}
	m := got.mblock()
	m.capacity = o.Capacity
	return m, nil
}

// ReallocMblock implements [api.Pool].
func (p *pool) ReallocMblock(ctx context.Context, id layout.ObjectID, o api.AllocOptions) (api.Mblock, error) {
	if id == 0 {
		return nil, api.Errorf(api.EINVAL, "mblock realloc", "not an mblock's id")
	}
	return p.allocMblock(ctx, id, o)
}

// Mblock implements [api.Pool].
func (p *pool) Mblock(ctx context.Context, id layout.ObjectID) (api.Mblock, error) {
	if p.c.credits != nil {
		return p.openMblock(ctx, id)
	}
	return mblockOf(p.find(ctx, ioctl.OpMblockFind, id))
}

// AllocMlog implements [api.Pool].
func (p *pool) AllocMlog(ctx context.Context, o api.AllocOptions) (api.Mlog, error) {
	return mlogOf(p.alloc(ctx, ioctl.OpMlogAlloc, 0, o))
}

// Mlog implements [api.Pool].
func (p *pool) Mlog(ctx context.Context, id layout.ObjectID) (api.Mlog, error) {
	return mlogOf(p.find(ctx, ioctl.OpMlogFind, id))
}

// CreateMDC implements [api.Pool].
func (p *pool) CreateMDC(ctx context.Context, o api.AllocOptions) (layout.ObjectID, error) {
	const op = ioctl.OpMDCCreate
	reply := &ioctl.MDCCreated{}
	err := p.run(ctx, op, once, func(l *link, h ioctl.Handle) error {
		return l.do(ctx, op, &ioctl.Alloc{Pool: h, Options: o}, reply)
	})
	return reply.ID, err
}

// OpenMDC implements [api.Pool].
func (p *pool) OpenMDC(ctx context.Context, id layout.ObjectID) (api.MDC, error) {
	// As with alloc. Also, a daemon that still lives may hold what a lost
	// request has opened for a moment more.
	o, err := p.open(ctx, ioctl.OpMDCOpen, once, func(h ioctl.Handle) ioctl.Message { return &ioctl.Find{Pool: h, ID: id} })
	if err != nil {
		return nil, err
	}
	return &mdc{handle: handle{l: o.l, h: o.Handle}}, nil
}

// DeleteMDC implements [api.Pool].
func (p *pool) DeleteMDC(ctx context.Context, id layout.ObjectID) error {
	const op = ioctl.OpMDCDelete
	return p.run(ctx, op, once, func(l *link, h ioctl.Handle) error {
		return l.do(ctx, op, &ioctl.Find{Pool: h, ID: id}, &ioctl.Empty{})
	})
}

// AddOwner implements [api.Pool].
func (p *pool) AddOwner(ctx context.Context, name string, parent uint32) (uint32, error) {
	const op = ioctl.OpOwnerAdd
	reply := &ioctl.OwnerAdded{}
	err := p.run(ctx, op, once, func(l *link, h ioctl.Handle) error {
		return l.do(ctx, op, &ioctl.OwnerAdd{Pool: h, Parent: parent, Name: name}, reply)
	})
	return reply.Index, err
}

// Owners implements [api.Pool].
func (p *pool) Owners(ctx context.Context) (owners []api.Owner, err error) {
	const op = ioctl.OpOwnerList
	err = p.run(ctx, op, again, func(l *link, h ioctl.Handle) error {
		owners = nil
		for ask := (&ioctl.OwnerList{Pool: h}); ; {
			reply := &ioctl.OwnersReply{}
			if err := l.do(ctx, op, ask, reply); err != nil {
				return err
			}
			owners = append(owners, reply.Owners...)
			if !reply.More || len(reply.Owners) == 0 {
				return nil
			}
			ask.From = owners[len(owners)-1].Index + 1
		}
	})
	if err != nil {
		return nil, err
	}
	return owners, nil
}

// Objects implements [api.Pool]. When the connection breaks after the first
// object was given, the loop ends with ECONNRESET.
func (p *pool) Objects(ctx context.Context, f api.Filter) iter.Seq2[api.ObjectInfo, error] {
	const op = ioctl.OpListNext
	return func(yield func(api.ObjectInfo, error) bool) {
		var s stream[api.ObjectInfo]
		s.yield = yield
		err := p.run(ctx, op, again, func(l *link, h ioctl.Handle) error {
			opened := &ioctl.Opened{}
			if err := l.do(ctx, ioctl.OpListOpen, &ioctl.ListOpen{Pool: h, Filter: f}, opened); err != nil {
				return err
			}
			defer l.putBack(ctx, opened.Handle)
			for more := true; more; {
				reply := &ioctl.ListReply{}
				if err := l.do(ctx, op, &ioctl.Target{Handle: opened.Handle}, reply); err != nil {
					return s.broken(op, err)
				}
				more = s.give(reply.Objects) && reply.More
			}
			return nil
		})
		s.end(err)
	}
}

// stream gives a list's entries to a loop.
type stream[T any] struct {
	yield   func(T, error) bool
	begun   bool // something was given
	stopped bool // the loop wants no more
}

// give gives entries, and says whether the loop wants more.
func (s *stream[T]) give(list []T) bool {
	for i := range list {
		s.begun = true
		if !s.yield(list[i], nil) {
			s.stopped = true
			return false
		}
	}
	return true
}

// broken makes the error of a list that cannot begin anew final.
func (s *stream[T]) broken(op ioctl.Op, err error) error {
	if s.begun && lostIn(err) != nil {
		return final(op, err, "the connection to the daemon broke in the middle of the list: begin again")
	}
	return err
}

// end gives the loop the error that the list ended with, if any.
func (s *stream[T]) end(err error) {
	if err != nil && !s.stopped {
		var none T
		s.yield(none, err)
	}
}
