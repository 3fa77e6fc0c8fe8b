package server

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/uhandle"
)

// startCommit commits an object, as objectCommit does.
func (x *ringOp) startCommit(v resource) error {
	o, ok := v.(*objectRef)
	if !ok {
		panic("server: a handle's kind and its value do not agree")
	}
	if err := o.ref.mustWrite(); err != nil {
		return err
	}
	if err := x.inChain(o); err != nil {
		return err
	}
	m, ok := o.mblock.(*mpool.Mblock)
	if !ok {
		return errSlow
	}
	x.obj = o
	return x.commit(m)
}

// commit begins the commit of the operation's object, which the metadata log tells
// the end of. The session is not over before.
func (x *ringOp) commit(m *mpool.Mblock) error {
	s := x.ring.set.s
	x.awaitLog()
	s.commitBegins()
	// Looked at after it counts: no commit begins in a session that was seen over.
	var err error = api.Errorf(api.ECANCELED, "", "the session has ended")
	if !x.ring.set.stopped() {
		err = m.BeginCommit(x.durable)
	}
	if err != nil {
		x.notAwaited(true)
		s.sweepFor(x.obj)
		s.commitEnds()
		return slowIf(err)
	}
	return nil
}

// commitBegins and commitEnds count a commit that the metadata log has.
func (s *session) commitBegins() {
	s.requests.Add(1)
	s.lasting.Add(1)
}

func (s *session) commitEnds() {
	s.lasting.Add(-1)
	s.requests.Done()
}

// sweepFor sweeps after a commit that was not begun, or has failed: who swept
// meanwhile has found it under way.
func (s *session) sweepFor(o *objectRef) {
	if a := o.ref.pool; a.orphans.Load() > 0 {
		s.requests.Go(func() { a.sweep(s.srv, o.obj.ID()) })
	}
}

// startPut allocates an mblock and begins to write its data. It has its handle from
// the beginning, so that the session's end finds it.
func (x *ringOp) startPut(v resource, mem []byte) error {
	o := allocation(&x.d)
	if o.Capacity == 0 {
		o.Capacity = int64(len(mem))
	}
	m, err := x.alloc(v, o)
	if err != nil {
		return err
	}
	if err := m.BeginWrite(&x.write, mem); err != nil {
		x.undo(err)
		return err
	}
	x.queueWrite(len(mem))
	return nil
}

// written commits what a put has written.
func (x *ringOp) written() {
	_, err := x.write.End()
	if err == nil {
		err = x.commitIfThere()
	}
	switch {
	case err == nil:
	case errors.Is(err, errSlow):
		x.dismiss()
		x.toLane()
	default:
		x.undo(err)
		x.end(err)
	}
}

func (x *ringOp) commitIfThere() error {
	s := x.ring.set.s
	// In use, it cannot be handed over to another session meanwhile.
	e, err := s.table.Use(uhandle.Handle(x.made), kindMblock)
	if err != nil {
		return badHandle(x.made)
	}
	_, m := engineMblock(x.obj)
	err = x.commit(m)
	s.doneWith(e)
	return err
}

// doneWith ends a use where nobody may wait.
func (s *session) doneWith(e *uhandle.Entry[resource]) {
	if s.table.Done(e) {
		s.requests.Go(func() { s.release(e.Value) })
	}
}

// undo undoes a put that failed: there is no mblock, unless its commit may come
// through; and no handle, of which the client does not know.
func (x *ringOp) undo(err error) {
	if x.verb != verbPut || x.obj == nil {
		return
	}
	o, s := x.obj, x.ring.set.s
	x.obj = nil
	s.discard(o, x.made, err)
}

// discard gives up an object that was to be put and could not be.
func (s *session) discard(o *objectRef, h ioctl.Handle, err error) {
	e, uerr := s.table.Use(uhandle.Handle(h), kindMblock)
	if uerr == nil { // else somebody has guessed the handle and given it up, or the session has ended
		// It does not wait.
		if api.CodeOf(err) != api.EUNKNOWN && o.obj.Abort(context.Background()) == nil {
			o.ref.pool.settled(s, o.obj.ID())
		}
		s.table.End(e)
		s.doneWith(e)
	}
	s.sweepFor(o)
}

// commitWritten commits what a put has written, where that waits.
func (x *ringOp) commitWritten(r *request) (ioctl.Message, error) {
	if _, err := objectCommit(r, &ioctl.Target{Handle: x.made}); err != nil {
		return nil, err
	}
	reply := &ioctl.Opened{Handle: x.made, ID: x.obj.obj.ID()}
	if info, err := x.obj.obj.Info(r.ctx); err == nil {
		reply.Created = info.Created
	}
	return reply, nil
}

// mblockPut allocates an mblock, writes it and commits it.
func mblockPut(r *request, m *ioctl.MblockPut) (ioctl.Message, error) {
	data, err := r.payload(&m.Data)
	if err != nil {
		return nil, err
	}
	if m.Options.Capacity == 0 {
		m.Options.Capacity = int64(len(data))
	}
	p, err := usePool(r, m.Pool, true)
	if err != nil {
		return nil, err
	}
	ask := &ioctl.Alloc{Pool: m.Pool, Options: m.Options}
	if err := r.mustMayAlloc(p, ask); err != nil {
		return nil, err
	}
	// It may wait for a drive that the dead must not wait for.
	ctx, letGo := r.s.untilEnd(r.ctx)
	b, err := p.pool.pool.AllocMblock(ctx, ask.Options)
	letGo()
	if err != nil {
		return nil, err
	}
	reply, o, err := r.born(p, b)
	if err != nil {
		return nil, err
	}
	if err := r.store(o, reply.Handle, data); err != nil {
		r.s.discard(o, reply.Handle, err)
		return nil, err
	}
	return reply, nil
}

// store writes and commits an object that was allocated just now.
func (r *request) store(o *objectRef, h ioctl.Handle, data []byte) error {
	// Its handle is in use, and so its reference the session's to the end.
	if _, err := use[*objectRef](r, h, kindMblock); err != nil {
		return err
	}
	if len(data) > 0 {
		// The commit runs to its end, the write ends with the session.
		ctx, letGo := r.s.untilEnd(r.ctx)
		defer letGo()
		n, err := o.mblock.Write(ctx, data)
		r.bytes = uint64(n)
		if err != nil {
			return err
		}
	}
	if err := o.obj.Commit(r.ctx); err != nil {
		return err
	}
	o.ref.pool.settled(r.s, o.obj.ID())
	return nil
}
