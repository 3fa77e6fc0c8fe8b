package server

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// mustMayAlloc says whether the peer may allocate with these options, and puts
// into them for whom it does.
func (r *request) mustMayAlloc(p *poolRef, m *ioctl.Alloc) error {
	if m.Options.UseSpare && !r.s.peer.admin {
		return api.Errorf(api.EPERM, "", "only root and the daemon's user may use the spare share")
	}
	if uid, _, _ := p.pool.pool.Access(); m.ID != 0 && !r.s.peer.admin && r.s.peer.uid != uid {
		return api.Errorf(api.EPERM, "", "only administrators and the pool's owner may give an id again")
	}
	x, err := r.access(p.pool)
	if err != nil {
		return err
	}
	m.Options.Owner, err = x.owner(m.Options.Owner)
	return err
}

// born gives the handle of an object that was allocated just now.
func (r *request) born(p *poolRef, obj api.Object) (*ioctl.Opened, *objectRef, error) {
	id := obj.ID()
	r.fresh = true
	p.pool.adopt(r.s, id)
	reply, ref, err := r.openedRef(p, obj)
	if err != nil {
		p.pool.orphan(r.s, id)
	}
	return reply, ref, err
}

// answerOf is what born returns, as an answer.
func answerOf(reply *ioctl.Opened, _ *objectRef, err error) (ioctl.Message, error) {
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// opened gives a handle on an object.
func (r *request) opened(p *poolRef, obj api.Object) (ioctl.Message, error) {
	return answerOf(r.openedRef(p, obj))
}

func (r *request) openedRef(p *poolRef, obj api.Object) (*ioctl.Opened, *objectRef, error) {
	r.s.srv.followGrowth(p.pool)
	ref := newObjectRef(p, obj)
	id := obj.ID()
	reply := &ioctl.Opened{ID: id}
	if info, err := obj.Info(r.ctx); err == nil {
		reply.Created = info.Created
	}
	h, err := r.giveChild(ref.kind(), ref)
	if err != nil {
		return nil, nil, err
	}
	reply.Handle = h
	return reply, ref, nil
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
	reply, ref, err := r.born(p, b)
	if err == nil && m.ID != 0 {
		if err = r.claim(uhandle.Handle(reply.Handle), ref); err != nil {
			p.pool.orphan(r.s, m.ID)
		}
	}
	return answerOf(reply, ref, err)
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
	return answerOf(r.born(p, l))
}

func mblockFind(r *request, m *ioctl.Find) (ioctl.Message, error) {
	return r.find(m, layout.KindMblock, func(ctx context.Context, p api.Pool) (api.Object, error) {
		return p.Mblock(ctx, m.ID)
	})
}

func mlogFind(r *request, m *ioctl.Find) (ioctl.Message, error) {
	return r.find(m, layout.KindMlog, func(ctx context.Context, p api.Pool) (api.Object, error) {
		return p.Mlog(ctx, m.ID)
	})
}

// find gives a handle on an object by its id. Another session's uncommitted
// object is not found, nor is one of an owner that the session does not act
// for.
func (r *request) find(m *ioctl.Find, kind layout.Kind, get func(context.Context, api.Pool) (api.Object, error)) (ioctl.Message, error) {
	p, err := usePool(r, m.Pool, false)
	if err != nil {
		return nil, err
	}
	a := p.pool
	if err := r.mustShow(a, m.ID); err != nil {
		return nil, err
	}
	if m.ID.Kind() == kind { // else the pool says what is wrong
		// Looked at first, so that a stranger's look is in nobody's way.
		if err := r.mustReach(a, m.ID); err != nil {
			return nil, err
		}
	}
	r.looked = m.ID
	obj, err := get(r.ctx, a.pool)
	if err != nil {
		return nil, err
	}
	// It may be uncommitted all the same, born just now and not adopted yet; or
	// its id may have been given again.
	info, err := obj.Info(r.ctx)
	if err == nil && info.State == api.StateUncommitted && a.adopter(m.ID) != r.s {
		err = noObject(m.ID)
	}
	if err == nil {
		err = r.mustReachInfo(a, &info)
	}
	if err != nil {
		return nil, errors.Join(err, obj.Put())
	}
	return r.opened(p, obj)
}

// mustShow says ENOENT of another session's uncommitted object. One whose session was
// fenced or has ended is being aborted, unless its commit had begun before: whoever has its
// credit now is told what became of it.
func (r *request) mustShow(a *activePool, id layout.ObjectID) error {
	if !r.hidden(a, id) {
		return nil
	}
	c := a.credits
	if by := a.adopter(id); by != nil && (c.isEnding(id) || by.gone.Load() && c.lentTo(r.s, id)) {
		c.awaitFate(r.ctx, by, id)
		if r.ctx.Err() != nil {
			return api.ContextError("", context.Cause(r.ctx))
		}
		if a.adopter(id) == by {
			return &api.Error{Code: api.EBUSY, Object: id, Detail: "what its owner had begun before it lost it is under way still: try again"}
		}
	}
	if r.hidden(a, id) {
		return noObject(id)
	}
	return nil
}

// hidden says whether an object is another session's uncommitted one.
func (r *request) hidden(a *activePool, id layout.ObjectID) bool {
	by := a.adopter(id)
	if by == nil || by == r.s {
		return false
	}
	// Its commit may have come through after its request had given up.
	info, err := a.pool.Describe(r.ctx, id)
	return err == nil && info.State != api.StateCommitted
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
	r.s.srv.dying.letGoOf(o.obj.ID()) // the dead hold nothing
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
	o.ref.pool.settled(r.s, o.obj.ID())
	return &ioctl.Empty{}, nil
}

func objectAbort(r *request, m *ioctl.Target) (ioctl.Message, error) {
	o, err := useObject(r, m.Handle, true)
	if err != nil {
		return nil, err
	}
	id := o.obj.ID()
	if err := r.unlessHeld(o.ref.pool, id, func() error { return o.obj.Abort(r.ctx) }); err != nil {
		return nil, err
	}
	o.ref.pool.settled(r.s, id)
	r.gone(o)
	return &ioctl.Empty{}, nil
}

func objectDelete(r *request, m *ioctl.Target) (ioctl.Message, error) {
	o, err := useObject(r, m.Handle, true)
	if err != nil {
		return nil, err
	}
	a, id := o.ref.pool, o.obj.ID()
	if err := r.unlessHeld(a, id, func() error {
		return a.credits.during(r.ctx, r.s, []layout.ObjectID{id}, credit.Delete, func() error { return o.obj.Delete(r.ctx) })
	}); err != nil {
		return nil, err
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
	if err := r.mustReachRoots(p.pool, roots); err != nil {
		return nil, err
	}
	if err := p.pool.pool.CommitMany(r.ctx, objects, roots); err != nil {
		return nil, err
	}
	for _, o := range objects {
		p.pool.settled(r.s, o.ID())
	}
	return &ioctl.Empty{}, nil
}
