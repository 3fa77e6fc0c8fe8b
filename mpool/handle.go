package mpool

import (
	"context"
	"io"
	"iter"
	"sort"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
)

// handle is what Mblock and Mlog have in common: one reference on an object.
type handle struct {
	obj   *object
	state atomic.Uint32 // handleLive, ...
}

// A handle's states.
const (
	handleLive   = iota
	handleEnding // an Abort or a Delete is under way, which ends it if it succeeds
	handlePut    // the same, and it was put meanwhile: it ends whatever comes
	handleEnded
)

func (h *handle) base() *handle { return h }

// live returns the object, or EBADF after the handle or the pool has ended, or
// the context's error after that has.
func (h *handle) live(ctx context.Context, op string) (*object, error) {
	if h.state.Load() != handleLive {
		return nil, h.over(op)
	}
	if err := h.obj.pool.alive(op); err != nil {
		return nil, err
	}
	return h.obj, timely(ctx, op)
}

// over is the error of who uses a handle that has ended, or is ending.
func (h *handle) over(op string) error {
	return &api.Error{Code: api.EBADF, Op: op, Object: h.obj.id, Detail: "the handle was put, aborted or deleted"}
}

// ID returns the object's id; it may be called on an ended handle.
func (h *handle) ID() layout.ObjectID { return h.obj.id }

// Info implements [api.Object].
func (h *handle) Info(ctx context.Context) (api.ObjectInfo, error) {
	o, err := h.live(ctx, "object show")
	if err != nil {
		return api.ObjectInfo{}, err
	}
	return o.info(), nil
}

// Put implements [api.Object].
func (h *handle) Put() error {
	for {
		switch h.state.Load() {
		case handleLive:
			if h.state.CompareAndSwap(handleLive, handleEnded) {
				h.obj.unref()
				return nil
			}
		case handleEnding:
			// The reference is given back by who is ending the handle.
			if h.state.CompareAndSwap(handleEnding, handlePut) {
				return nil
			}
		default:
			return h.over("put")
		}
	}
}

// Commit implements [api.Object].
func (h *handle) Commit(ctx context.Context) error {
	op := h.obj.id.Kind().String() + " commit"
	o, err := h.live(ctx, op)
	if err != nil {
		return err
	}
	return o.pool.commit(ctx, op, []*object{o}, nil)
}

// Abort implements [api.Object].
func (h *handle) Abort(ctx context.Context) error {
	op := h.obj.id.Kind().String() + " abort"
	return h.end(ctx, op, func(o *object) error { return o.abort(op) })
}

// Delete implements [api.Object].
func (h *handle) Delete(ctx context.Context) error {
	op := h.obj.id.Kind().String() + " delete"
	return h.end(ctx, op, func(o *object) error {
		if _, desc := o.snapshot(); desc.Partner != 0 {
			return &api.Error{
				Code: api.ESTATE, Op: op, Object: o.id,
				Detail: "the log belongs to a metadata container; delete that",
			}
		}
		return o.pool.remove(ctx, op, o)
	})
}

// end ends the handle if f succeeds; while f runs nobody else can, but for a Put,
// which counts when f fails.
func (h *handle) end(ctx context.Context, op string, f func(*object) error) error {
	if _, err := h.live(ctx, op); err != nil {
		return err
	}
	if !h.state.CompareAndSwap(handleLive, handleEnding) {
		return h.over(op)
	}
	err := f(h.obj)
	switch {
	case err == nil:
		h.state.Store(handleEnded)
	case !h.state.CompareAndSwap(handleEnding, handleLive):
		h.state.Store(handleEnded)
		h.obj.unref()
	}
	return err
}

// handleEnd says once that an appender, a reader or a container is closed.
type handleEnd struct {
	ended atomic.Bool
}

func (e *handleEnd) check(op string, id layout.ObjectID) error {
	if e.ended.Load() {
		return &api.Error{Code: api.EBADF, Op: op, Object: id, Detail: "it was closed"}
	}
	return nil
}

func (e *handleEnd) end(op string, id layout.ObjectID) error {
	if e.ended.Swap(true) {
		return &api.Error{Code: api.EBADF, Op: op, Object: id, Detail: "it was closed"}
	}
	return nil
}

// Mblock is a handle on an mblock; it implements [api.Mblock].
type Mblock struct {
	handle
}

// AllocMblock implements [api.Pool].
func (p *Pool) AllocMblock(ctx context.Context, o api.AllocOptions) (api.Mblock, error) {
	m, err := p.allocMblock(ctx, opMblockAlloc, newMblock, o, true)
	if err != nil {
		return nil, err // not a handle that is none
	}
	return m, nil
}

// ReallocMblock implements [api.Pool].
func (p *Pool) ReallocMblock(ctx context.Context, id layout.ObjectID, o api.AllocOptions) (api.Mblock, error) {
	const op = "mblock realloc"
	if id.Kind() != layout.KindMblock || !id.Valid() {
		return nil, api.Errorf(api.EINVAL, op, "%v is not an mblock's id", id)
	}
	if id.Counter() > layout.MaxCounter-2*counterStep {
		return nil, &api.Error{Code: api.EINVAL, Op: op, Object: id, Detail: "the id is too high: no ids would be left above it"}
	}
	m, err := p.allocMblock(ctx, op, id, o, true)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (p *Pool) allocMblock(ctx context.Context, op string, id layout.ObjectID, o api.AllocOptions, wait bool) (*Mblock, error) {
	if o.Capacity < 0 || o.Capacity > api.MaxMblockCapacity {
		return nil, api.Errorf(api.EINVAL, op, "capacity %d: want 0 to %d bytes", o.Capacity, api.MaxMblockCapacity)
	}
	obj, err := p.alloc(ctx, op, id, o, mblock.BlocksFor(o.Capacity), wait)
	if err != nil {
		return nil, err
	}
	return &Mblock{handle{obj: obj}}, nil
}

// Mblock implements [api.Pool].
func (p *Pool) Mblock(ctx context.Context, id layout.ObjectID) (api.Mblock, error) {
	const op = "mblock find"
	if err := p.alive(op); err != nil {
		return nil, err
	}
	if id.Kind() != layout.KindMblock || !id.Valid() {
		return nil, api.Errorf(api.EINVAL, op, "%v is not an mblock's id", id)
	}
	o, err := p.find(ctx, op, id)
	if err != nil {
		return nil, err
	}
	return &Mblock{handle{obj: o}}, nil
}

// Get implements [api.Object].
func (m *Mblock) Get(ctx context.Context) (api.Object, error) {
	o, err := m.live(ctx, "mblock get")
	if err != nil {
		return nil, err
	}
	if err := o.ref("mblock get"); err != nil {
		return nil, err
	}
	return &Mblock{handle{obj: o}}, nil
}

// Reader returns the reader of a committed mblock, for callers that drive I/O
// queues themselves. It is valid while the handle is. Errors: ESTATE, EBADF.
func (m *Mblock) Reader() (*mblock.Reader, error) {
	const op = "mblock read"
	o, err := m.live(context.Background(), op)
	if err != nil {
		return nil, err
	}
	if st, _ := o.snapshot(); st != committed {
		return nil, &api.Error{Code: api.ESTATE, Op: op, Object: o.id, Detail: "the mblock is not committed"}
	}
	if err := o.drive.present(op, o.id); err != nil {
		return nil, err
	}
	return o.reader, nil
}

// copyChunk is the unit of WriteTo, in bytes: two reads are under way together.
const copyChunk = 4 << 20

// WriteTo implements io.WriterTo. It is the fastest way to read an mblock in order:
// through aligned memory of its own, 4 MiB at most.
func (m *Mblock) WriteTo(w io.Writer) (int64, error) {
	o, err := m.live(context.Background(), opMblockRead)
	if err != nil {
		return 0, err
	}
	// No more than there is to read: most mblocks may be small.
	length := min(max(o.info().Length, 1), copyChunk)
	buf := bdev.AllocBuffer(int(length+layout.BlockSize-1) &^ (layout.BlockSize - 1))
	defer bdev.FreeBuffer(buf)
	var done int64
	for {
		n, err := m.ReadAt(buf, done)
		if n > 0 {
			k, werr := w.Write(buf[:n])
			done += int64(k)
			if werr != nil {
				return done, werr
			}
		}
		if err == io.EOF { //nolint:errorlint // io.ReaderAt returns it bare
			return done, nil
		}
		if err != nil {
			return done, err
		}
	}
}

// Objects implements [api.Pool].
func (p *Pool) Objects(ctx context.Context, f api.Filter) iter.Seq2[api.ObjectInfo, error] {
	return func(yield func(api.ObjectInfo, error) bool) {
		if err := p.alive("object list"); err != nil {
			yield(api.ObjectInfo{}, err)
			return
		}
		if f.State != api.StateCommitted && !p.yieldInUse(f, yield) {
			return
		}
		if f.State != 0 && f.State != api.StateCommitted {
			return
		}
		const chunk = 256
		list := make([]layout.Object, 0, chunk)
		for cursor := uint64(0); ; {
			list = list[:0]
			cursor = p.table.Scan(cursor, chunk, func(o layout.Object) { list = append(list, o) })
			for i := range list {
				info := p.describe(&list[i])
				info.Refs = p.refsOf(info.ID)
				if chosen(f, &info) && !yield(info, nil) {
					return
				}
			}
			if cursor == 0 {
				return
			}
			if err := ctx.Err(); err != nil {
				yield(api.ObjectInfo{}, api.ContextError("object list", err))
				return
			}
		}
	}
}

// yieldInUse visits the uncommitted objects. It returns false when the visitor
// has had enough.
func (p *Pool) yieldInUse(f api.Filter, yield func(api.ObjectInfo, error) bool) bool {
	p.usesMu.Lock()
	list := make([]*object, 0, len(p.uses))
	for _, o := range p.uses { // order does not matter: sorted below
		list = append(list, o)
	}
	p.usesMu.Unlock()
	sort.Slice(list, func(i, j int) bool { return list[i].id < list[j].id })
	for _, o := range list {
		info := o.info()
		if info.State != api.StateCommitted && chosen(f, &info) && !yield(info, nil) {
			return false
		}
	}
	return true
}

func (p *Pool) refsOf(id layout.ObjectID) uint32 {
	p.usesMu.Lock()
	defer p.usesMu.Unlock()
	if o := p.uses[id]; o != nil {
		return o.use.Refs()
	}
	return 0
}

func chosen(f api.Filter, i *api.ObjectInfo) bool {
	return (f.Kind == 0 || f.Kind == i.Kind) && (f.Owner == nil || *f.Owner == i.Owner) &&
		(f.Tag == nil || *f.Tag == i.Tag) && (f.State == 0 || f.State == i.State)
}
