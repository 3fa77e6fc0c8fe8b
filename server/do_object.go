package server

import (
	"context"
	"errors"
	"iter"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// mustMayAlloc says whether the peer may allocate with these options.
func (r *request) mustMayAlloc(p *poolRef, m *ioctl.Alloc) error {
	if m.Options.UseSpare && !r.s.peer.admin {
		return api.Errorf(api.EPERM, "", "only root and the daemon's user may use the spare share")
	}
	if uid, _, _ := p.pool.pool.Access(); m.ID != 0 && !r.s.peer.admin && r.s.peer.uid != uid {
		return api.Errorf(api.EPERM, "", "only administrators and the pool's owner may give an id again")
	}
	return nil
}

// born gives the handle of an object that was allocated just now.
func (r *request) born(p *poolRef, obj api.Object) (ioctl.Message, error) {
	id := obj.ID()
	p.pool.adopt(r.s, id)
	reply, err := r.opened(p, obj)
	if err != nil {
		p.pool.orphan(r.s, id)
	}
	return reply, err
}

// opened gives a handle on an object.
func (r *request) opened(p *poolRef, obj api.Object) (ioctl.Message, error) {
	ref := newObjectRef(p, obj)
	id := obj.ID()
	reply := &ioctl.Opened{ID: id}
	if info, err := obj.Info(r.ctx); err == nil {
		reply.Created = info.Created
	}
	h, err := r.giveChild(ref.kind(), ref)
	if err != nil {
		return nil, err
	}
	reply.Handle = h
	return reply, nil
}

func mblockAlloc(r *request, m *ioctl.Alloc) (ioctl.Message, error) {
	p, err := usePool(r, m.Pool, true)
	if err != nil {
		return nil, err
	}
	if err := r.mustMayAlloc(p, m); err != nil {
		return nil, err
	}
	var b api.Mblock
	if m.ID != 0 {
		b, err = p.pool.pool.ReallocMblock(r.ctx, m.ID, m.Options)
	} else {
		b, err = p.pool.pool.AllocMblock(r.ctx, m.Options)
	}
	if err != nil {
		return nil, err
	}
	return r.born(p, b)
}

func mlogAlloc(r *request, m *ioctl.Alloc) (ioctl.Message, error) {
	p, err := usePool(r, m.Pool, true)
	if err != nil {
		return nil, err
	}
	if err := r.mustMayAlloc(p, m); err != nil {
		return nil, err
	}
	if m.ID != 0 {
		return nil, api.Errorf(api.EINVAL, "", "only mblocks can be given an id again")
	}
	l, err := p.pool.pool.AllocMlog(r.ctx, m.Options)
	if err != nil {
		return nil, err
	}
	return r.born(p, l)
}

func mblockFind(r *request, m *ioctl.Find) (ioctl.Message, error) {
	return r.find(m, func(ctx context.Context, p api.Pool) (api.Object, error) { return p.Mblock(ctx, m.ID) })
}

func mlogFind(r *request, m *ioctl.Find) (ioctl.Message, error) {
	return r.find(m, func(ctx context.Context, p api.Pool) (api.Object, error) { return p.Mlog(ctx, m.ID) })
}

// find gives a handle on an object by its id. Another session's uncommitted
// object is not found.
func (r *request) find(m *ioctl.Find, get func(context.Context, api.Pool) (api.Object, error)) (ioctl.Message, error) {
	p, err := usePool(r, m.Pool, false)
	if err != nil {
		return nil, err
	}
	none := &api.Error{Code: api.ENOENT, Object: m.ID, Detail: "no such object"}
	owner := p.pool.owner(m.ID)
	if owner != nil && owner != r.s {
		return nil, none
	}
	obj, err := get(r.ctx, p.pool.pool)
	if err != nil {
		return nil, err
	}
	if owner == nil {
		// It may be uncommitted all the same: born just now, not adopted yet.
		info, err := obj.Info(r.ctx)
		if err == nil && info.State == api.StateUncommitted && p.pool.owner(m.ID) != r.s {
			err = none
		}
		if err != nil {
			return nil, errors.Join(err, obj.Put())
		}
	}
	return r.opened(p, obj)
}

// useObject looks up an mblock's or mlog's handle.
func useObject(r *request, h ioctl.Handle, write bool) (*objectRef, error) {
	o, err := use[*objectRef](r, h, kindMblock, kindMlog)
	if err != nil {
		return nil, err
	}
	if write {
		return o, o.ref.mustWrite()
	}
	return o, nil
}

func objectInfo(r *request, m *ioctl.Target) (ioctl.Message, error) {
	o, err := useObject(r, m.Handle, false)
	if err != nil {
		return nil, err
	}
	info, err := o.obj.Info(r.ctx)
	if err != nil {
		return nil, err
	}
	return &ioctl.ObjectReply{Info: info}, nil
}

func objectGet(r *request, m *ioctl.Target) (ioctl.Message, error) {
	o, err := useObject(r, m.Handle, false)
	if err != nil {
		return nil, err
	}
	again, err := o.obj.Get(r.ctx)
	if err != nil {
		return nil, err
	}
	return r.opened(o.ref, again)
}

func objectCommit(r *request, m *ioctl.Target) (ioctl.Message, error) {
	o, err := useObject(r, m.Handle, true)
	if err != nil {
		return nil, err
	}
	if err := o.obj.Commit(r.ctx); err != nil {
		return nil, err
	}
	o.ref.pool.settled(o.obj.ID())
	return &ioctl.Empty{}, nil
}

func objectAbort(r *request, m *ioctl.Target) (ioctl.Message, error) {
	o, err := useObject(r, m.Handle, true)
	if err != nil {
		return nil, err
	}
	id := o.obj.ID()
	if err := o.obj.Abort(r.ctx); err != nil {
		return nil, r.withHolders(o, err)
	}
	o.ref.pool.settled(id)
	r.gone(o)
	return &ioctl.Empty{}, nil
}

func objectDelete(r *request, m *ioctl.Target) (ioctl.Message, error) {
	o, err := useObject(r, m.Handle, true)
	if err != nil {
		return nil, err
	}
	if err := o.obj.Delete(r.ctx); err != nil {
		return nil, r.withHolders(o, err)
	}
	r.gone(o)
	return &ioctl.Empty{}, nil
}

// gone ends the handle of an object that has ended itself, with its reference.
func (r *request) gone(o *objectRef) {
	r.s.table.End(r.entry())
	if o.taken() {
		r.s.forget(o)
	}
}

// withHolders puts into an EBUSY who holds the object. Others' processes are
// named to administrators only.
func (r *request) withHolders(o *objectRef, err error) error {
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.EBUSY {
		return err
	}
	e.Holders = nil
	for _, s := range r.s.srv.all() {
		if n := s.holds(o.ref.pool, o.obj.ID()); n > 0 {
			h := api.Holder{References: n}
			if s == r.s || r.s.peer.admin {
				h.PID = s.peer.pid
			}
			e.Holders = append(e.Holders, h)
		}
	}
	return err
}

func commitMany(r *request, m *ioctl.CommitMany) (ioctl.Message, error) {
	p, err := usePool(r, m.Pool, true)
	if err != nil {
		return nil, err
	}
	objects := make([]api.Object, len(m.Objects))
	for i, h := range m.Objects {
		o, err := useObject(r, h, true)
		if err != nil {
			return nil, err
		}
		if o.ref.pool != p.pool {
			return nil, &api.Error{Code: api.EINVAL, Object: o.obj.ID(), Detail: "the object is of another pool"}
		}
		objects[i] = o.obj
	}
	roots, err := r.roots(&m.Roots)
	if err != nil {
		return nil, err
	}
	if err := p.pool.pool.CommitMany(r.ctx, objects, roots); err != nil {
		return nil, err
	}
	for _, o := range objects {
		p.pool.settled(o.ID())
	}
	return &ioctl.Empty{}, nil
}

func listOpen(r *request, m *ioctl.ListOpen) (ioctl.Message, error) {
	p, err := usePool(r, m.Pool, false)
	if err != nil {
		return nil, err
	}
	l := &listRef{common: common{ref: p}}
	// The iteration goes on in later requests: it lives with the session.
	l.next, l.stop = iter.Pull2(p.pool.pool.Objects(r.s.ctx, m.Filter))
	h, err := r.giveChild(kindList, l)
	if err != nil {
		return nil, err
	}
	return &ioctl.Opened{Handle: h}, nil
}

func listNext(r *request, m *ioctl.Target) (ioctl.Message, error) {
	l, err := use[*listRef](r, m.Handle, kindList)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	reply := &ioctl.ListReply{}
	for visited := 1; len(reply.Objects) < ioctl.ObjectsPerPage; visited++ {
		info, err, ok := l.next()
		if !ok {
			return reply, nil
		}
		if err != nil {
			return nil, err
		}
		if info.State == api.StateCommitted || l.ref.pool.owner(info.ID) == r.s {
			reply.Objects = append(reply.Objects, info)
		}
		if visited%1024 == 0 && r.ctx.Err() != nil {
			break // what there is, and more when it is asked for
		}
	}
	reply.More = true
	return reply, nil
}

// holds counts the session's references on an object.
func (s *session) holds(a *activePool, id layout.ObjectID) (n uint32) {
	s.table.Each(func(_ uhandle.Handle, v resource) {
		if v.home() == a && v.object() == id {
			n++
		}
	})
	return n
}
