package server

import (
	"context"
	"errors"
	"io"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

func mblockWrite(r *request, m *ioctl.MblockWrite) (ioctl.Message, error) {
	o, err := use[*objectRef](r, m.Mblock, kindMblock)
	if err != nil {
		return nil, err
	}
	if err := o.ref.mustWrite(); err != nil {
		return nil, err
	}
	if m.Total > uint64(m.Data.Length) {
		if err := r.mustFit(o, m.Total); err != nil {
			return nil, err
		}
	}
	data, err := r.payload(&m.Data)
	if err != nil {
		return nil, err
	}
	n, err := o.mblock.Write(r.ctx, data)
	r.bytes = uint64(n)
	if err != nil {
		return nil, err
	}
	return &ioctl.MblockWritten{N: uint32(n)}, nil
}

// mustFit refuses the first part of a write that is too long as a whole.
func (r *request) mustFit(o *objectRef, total uint64) error {
	info, err := o.obj.Info(r.ctx)
	if err != nil {
		return err
	}
	if room := uint64(max(info.Capacity-info.Length, 0)); total > room && info.State == api.StateUncommitted {
		return &api.Error{
			Code: api.EFBIG, Object: info.ID, Want: int64(total), Have: int64(room),
			Detail: "more than the mblock's capacity; nothing was written",
		}
	}
	return nil
}

func mblockRead(r *request, m *ioctl.MblockRead) (ioctl.Message, error) {
	o, err := use[*objectRef](r, m.Mblock, kindMblock)
	if err != nil {
		return nil, err
	}
	mem, err := r.window(m.Into)
	if err != nil {
		return nil, err
	}
	n, err := o.mblock.ReadAtContext(r.ctx, mem, m.Offset)
	eof := errors.Is(err, io.EOF)
	if err != nil && !eof {
		return nil, err
	}
	r.bytes = uint64(n)
	reply := &ioctl.MblockReadReply{N: uint32(n), EOF: eof}
	if m.Into.Arena == 0 {
		reply.Data = mem[:n]
	}
	return reply, nil
}

// processLog is a log that tells the process that appends from others: only its own
// readers see what it has not synced.
type processLog interface {
	OpenAppendAs(ctx context.Context, process uint64) (api.Appender, error)
	OpenReadAs(ctx context.Context, process uint64) (api.LogReader, error)
}

func mlogOpenAppend(r *request, m *ioctl.Target) (ioctl.Message, error) {
	o, err := use[*objectRef](r, m.Handle, kindMlog)
	if err != nil {
		return nil, err
	}
	if err := o.ref.mustWrite(); err != nil {
		return nil, err
	}
	open := o.mlog.OpenAppend
	if l, ok := o.mlog.(processLog); ok {
		open = func(ctx context.Context) (api.Appender, error) { return l.OpenAppendAs(ctx, r.s.peer.number()) }
	}
	app, err := opening(r, appenderBytes, open)
	if api.CodeOf(err) == api.EBUSY && o.ref.pool.credits.settled(r.ctx, []layout.ObjectID{o.obj.ID()}) {
		app, err = opening(r, appenderBytes, open)
	}
	if err != nil {
		return nil, r.withHolders(o.ref.pool, o.obj.ID(), err)
	}
	records, bytes := app.Len()
	h, err := r.giveChild(kindAppender, &appenderRef{common: common{ref: o.ref}, id: o.obj.ID(), app: app, s: r.s})
	if err != nil {
		return nil, err
	}
	return &ioctl.AppenderOpened{Appender: h, Records: records, Bytes: bytes}, nil
}

// opening opens something on a log once the memory that it takes is reserved, which its
// reference gives back.
func opening[T any](r *request, bytes int64, open func(context.Context) (T, error)) (T, error) {
	if err := r.s.logs.take(r.s, HandleBytes, bytes); err != nil {
		var none T
		return none, err
	}
	v, err := open(r.ctx)
	if err != nil {
		r.s.logs.give(r.s, HandleBytes, bytes)
	}
	return v, err
}

func mlogOpenRead(r *request, m *ioctl.Target) (ioctl.Message, error) {
	o, err := use[*objectRef](r, m.Handle, kindMlog)
	if err != nil {
		return nil, err
	}
	open := o.mlog.OpenRead
	if l, ok := o.mlog.(processLog); ok {
		open = func(ctx context.Context) (api.LogReader, error) { return l.OpenReadAs(ctx, r.s.peer.number()) }
	}
	reader, err := opening(r, readerBytes, open)
	if err != nil {
		return nil, err
	}
	id := o.obj.ID()
	h, err := r.giveChild(kindReader, &readerRef{common: common{ref: o.ref}, id: id, turn: newTurn(), reader: reader, s: r.s})
	if err != nil {
		return nil, err
	}
	return &ioctl.Opened{Handle: h, ID: id}, nil
}

func mlogErase(r *request, m *ioctl.MlogErase) (ioctl.Message, error) {
	o, err := use[*objectRef](r, m.Mlog, kindMlog)
	if err != nil {
		return nil, err
	}
	if err := o.ref.mustWrite(); err != nil {
		return nil, err
	}
	a, ids := o.ref.pool, []layout.ObjectID{o.obj.ID()}
	err = a.credits.during(r.ctx, r.s, ids, credit.Append, func() error { return o.mlog.Erase(r.ctx, m.MinGeneration) })
	return &ioctl.Empty{}, r.withHolders(a, o.obj.ID(), err)
}

func appendRecord(r *request, m *ioctl.AppendRecord) (ioctl.Message, error) {
	a, err := use[*appenderRef](r, m.To, kindAppender)
	if err != nil {
		return nil, err
	}
	data, err := r.payload(&m.Data)
	if err != nil {
		return nil, err
	}
	number, err := a.app.Append(r.ctx, data, m.Sync)
	if err != nil {
		return nil, err
	}
	r.bytes = uint64(len(data))
	records, bytes := a.app.Len()
	return &ioctl.Appended{Record: number, Records: records, Bytes: bytes}, nil
}

func appenderSync(r *request, m *ioctl.Target) (ioctl.Message, error) {
	a, err := use[*appenderRef](r, m.Handle, kindAppender)
	if err != nil {
		return nil, err
	}
	return &ioctl.Empty{}, a.app.Sync(r.ctx)
}

func readNext(r *request, m *ioctl.ReadNext) (ioctl.Message, error) {
	l, err := use[*readerRef](r, m.Reader, kindReader)
	if err != nil {
		return nil, err
	}
	mem, err := r.window(m.Into)
	if err != nil {
		return nil, err
	}
	if err := l.turn.take(r.ctx); err != nil {
		return nil, err
	}
	defer l.turn.end()
	if m.Rewind {
		l.reader.Rewind()
	}
	n, err := l.reader.Next(r.ctx, mem)
	eof := errors.Is(err, io.EOF)
	if err != nil && !eof {
		return nil, err
	}
	r.bytes = uint64(n)
	reply := &ioctl.ReadNextReply{N: uint32(n), EOF: eof, Next: l.reader.Record()}
	if m.Into.Arena == 0 {
		reply.Data = mem[:n]
	}
	return reply, nil
}

func readSeek(r *request, m *ioctl.ReadSeek) (ioctl.Message, error) {
	l, err := use[*readerRef](r, m.Reader, kindReader)
	if err != nil {
		return nil, err
	}
	if err := l.turn.take(r.ctx); err != nil {
		return nil, err
	}
	defer l.turn.end()
	if m.Rewind {
		l.reader.Rewind()
	}
	return &ioctl.Empty{}, l.reader.Seek(r.ctx, m.Record)
}

func mdcCreate(r *request, m *ioctl.Alloc) (ioctl.Message, error) {
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
	// It may wait for a drive that the dead must not wait for.
	ctx, letGo := r.s.untilEnd(r.ctx)
	id, err := p.pool.pool.CreateMDC(ctx, m.Options)
	letGo()
	if err != nil {
		return nil, err
	}
	return &ioctl.MDCCreated{ID: id}, nil
}

func mdcOpen(r *request, m *ioctl.Find) (ioctl.Message, error) {
	p, err := usePool(r, m.Pool, true)
	if err != nil {
		return nil, err
	}
	r.looked = m.ID
	if err := r.mustReachMDC(p.pool, m.ID); err != nil {
		return nil, err
	}
	mdc, err := opening(r, 2*appenderBytes, func(ctx context.Context) (api.MDC, error) { return p.pool.pool.OpenMDC(ctx, m.ID) })
	if err != nil {
		return nil, r.withHolders(p.pool, m.ID, err)
	}
	h, err := r.giveChild(kindMDC, &mdcRef{common: common{ref: p}, id: m.ID, mdc: mdc, s: r.s})
	if err != nil {
		return nil, err
	}
	return &ioctl.Opened{Handle: h, ID: m.ID}, nil
}

// mustReachMDC is mustReach for a container's id; the pool says what is wrong
// with one of another kind.
func (r *request) mustReachMDC(a *activePool, id layout.ObjectID) error {
	if id.Kind() != layout.KindMlog {
		return nil
	}
	if err := r.mustShow(a, id); err != nil {
		return err
	}
	return r.mustReach(a, id)
}

func mdcDelete(r *request, m *ioctl.Find) (ioctl.Message, error) {
	p, err := usePool(r, m.Pool, true)
	if err != nil {
		return nil, err
	}
	r.looked = m.ID
	if err := r.mustReachMDC(p.pool, m.ID); err != nil {
		return nil, err
	}
	ids := r.heldAs(p.pool, m.ID)
	return &ioctl.Empty{}, r.unlessHeld(p.pool, m.ID, func() error {
		return p.pool.credits.during(r.ctx, r.s, ids, credit.Delete, func() error { return p.pool.pool.DeleteMDC(r.ctx, m.ID) })
	})
}

func useMDC(r *request, h ioctl.Handle) (api.MDC, error) {
	m, err := use[*mdcRef](r, h, kindMDC)
	if err != nil {
		return nil, err
	}
	return m.mdc, nil
}

// ofMDC makes a handler's function of a container's method that takes nothing.
func ofMDC(f func(api.MDC, context.Context) error) func(*request, *ioctl.Target) (ioctl.Message, error) {
	return func(r *request, m *ioctl.Target) (ioctl.Message, error) {
		mdc, err := useMDC(r, m.Handle)
		if err != nil {
			return nil, err
		}
		return &ioctl.Empty{}, f(mdc, r.ctx)
	}
}

func mdcAppend(r *request, m *ioctl.AppendRecord) (ioctl.Message, error) {
	mdc, err := useMDC(r, m.To)
	if err != nil {
		return nil, err
	}
	data, err := r.payload(&m.Data)
	if err != nil {
		return nil, err
	}
	r.bytes = uint64(len(data))
	return &ioctl.Empty{}, mdc.Append(r.ctx, data, m.Sync)
}

func mdcOpenRead(r *request, m *ioctl.Target) (ioctl.Message, error) {
	c, err := use[*mdcRef](r, m.Handle, kindMDC)
	if err != nil {
		return nil, err
	}
	reader, err := opening(r, readerBytes, c.mdc.OpenRead)
	if err != nil {
		return nil, err
	}
	h, err := r.giveChild(kindReader, &readerRef{common: common{ref: c.ref}, id: c.id, turn: newTurn(), reader: reader, s: r.s})
	if err != nil {
		return nil, err
	}
	return &ioctl.Opened{Handle: h}, nil
}

func mdcCompactAppend(r *request, m *ioctl.AppendRecord) (ioctl.Message, error) {
	mdc, err := useMDC(r, m.To)
	if err != nil {
		return nil, err
	}
	data, err := r.payload(&m.Data)
	if err != nil {
		return nil, err
	}
	r.bytes = uint64(len(data))
	return &ioctl.Empty{}, mdc.CompactAppend(r.ctx, data)
}

func mdcUsage(r *request, m *ioctl.Target) (ioctl.Message, error) {
	mdc, err := useMDC(r, m.Handle)
	if err != nil {
		return nil, err
	}
	used, capacity := mdc.Usage()
	return &ioctl.MDCUsage{Used: used, Capacity: capacity}, nil
}
