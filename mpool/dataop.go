package mpool

import (
	"context"
	"io"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/mblock"
)

const (
	opMblockRead  = "mblock read"
	opMblockWrite = "mblock write"
)

// ReadOp is one read of an mblock under way, for callers that drive I/O queues
// themselves; see [Mblock.BeginRead]. The zero value is ready; it may be used
// again, and then costs no allocation. Not safe for concurrent use.
type ReadOp struct {
	op  mblock.ReadOp
	obj *object
}

// WriteOp is one write of an mblock under way, as ReadOp is a read.
type WriteOp struct {
	op  mblock.WriteOp
	obj *object
}

// BeginRead prepares what [Mblock.ReadAtContext] does: it checks, pins the
// object and fills op. It never blocks and starts no I/O. The caller starts all
// of op.Ops, waits until all have ended, and calls op.End or op.EndQuiet; or
// op.Cancel, if none was started. Exactly one of the three, whatever happens to
// the handle, the object and the pool meanwhile: the handle may be put, and the
// object deleted; its space is not given to another before, and deactivation
// waits. Until then p is the device's. The whole of p is read at once: callers
// bound it.
//
// Errors: EBADF, ENOENT, EINVAL, EIO (the drive is missing), ECORRUPT (the
// object's record contradicts itself). Reads of a committed mblock allocate
// nothing but memory for I/O.
func (m *Mblock) BeginRead(op *ReadOp, p []byte, off int64) error {
	o, st, err := m.readable(context.Background())
	if err != nil {
		return err
	}
	if st < committed {
		err = o.writer.BeginRead(&op.op, p, off)
	} else {
		err = o.reader.BeginRead(&op.op, p, off)
	}
	if err != nil {
		return o.pool.corrupted(o.dataError(opMblockRead, err))
	}
	op.obj = o
	return nil
}

// Ops returns the device operations, with Drive set: none, the data's, or the
// data's and the checksums'. The caller may set OnDone, User and, of the first
// if the read is Direct, Fixed.
func (op *ReadOp) Ops() []*bdev.Op { return op.op.Ops() }

// Direct says whether the first of Ops reads straight into the caller's memory.
func (op *ReadOp) Direct() bool { return op.op.Direct() }

// End verifies what was read and gives everything back. It returns how many
// bytes of p are good, and io.EOF when p reached past the written length. It
// never blocks. Errors as [Mblock.ReadAtContext]; ECORRUPT is told as an
// [EventCorruption].
func (op *ReadOp) End() (int, error) {
	p := op.obj.pool
	n, err := op.EndQuiet()
	if err == nil || err == io.EOF { //nolint:errorlint // ReadOp.End returns it bare
		return n, err
	}
	return n, p.corrupted(err)
}

// EndQuiet is End, and tells nobody of ECORRUPT: for a read into memory that
// others can write to. There a mismatch says nothing about the drive until the
// same bytes were read into memory of one's own.
func (op *ReadOp) EndQuiet() (int, error) {
	o := op.obj
	op.obj = nil
	n, err := op.op.End()
	if err == nil || err == io.EOF { //nolint:errorlint // as in End
		return n, err
	}
	return n, o.dataError(opMblockRead, err)
}

// Cancel ends a read of which no operation was started.
func (op *ReadOp) Cancel() {
	op.obj = nil
	op.op.Cancel()
}

// BeginWrite prepares what [Mblock.Write] does: it gives the write its place,
// behind those begun before, pins the object and fills op. It never blocks and
// starts no I/O. The caller starts all of op.Ops, may call op.Sum meanwhile, waits
// until all have ended, and calls op.End; or op.Cancel, if none was started. Exactly
// one of the two, whatever happens meanwhile, as with [Mblock.BeginRead]; a
// commit waits for it. Until then p is the device's; if others change it, later
// reads of this object find the changed blocks ECORRUPT, and nobody else is
// harmed (see [mblock.Writer.BeginWrite], which also says what is copied). The
// whole of p is written at once: callers bound it. Errors as Write.
func (m *Mblock) BeginWrite(op *WriteOp, p []byte) error {
	o, err := m.writing(context.Background())
	if err != nil {
		return err
	}
	if err := o.writer.BeginWrite(&op.op, p); err != nil {
		o.poisonedBy(err)
		return o.dataError(opMblockWrite, err)
	}
	op.obj = o
	return nil
}

// Ops returns the device operations, with Drive set; of an empty write, none.
// The caller may set OnDone, User and, if the write is Direct, Fixed.
func (op *WriteOp) Ops() []*bdev.Op { return op.op.Ops() }

// Direct says whether all of Ops write straight out of the caller's memory.
func (op *WriteOp) Direct() bool { return op.op.Direct() }

// Sum computes the checksums, which End else does: best while the device is at it.
func (op *WriteOp) Sum() { op.op.Sum() }

// End gives everything back. It returns how many bytes were written: all, or 0
// and EIO, after which only Abort is left. It never blocks.
func (op *WriteOp) End() (int, error) {
	o := op.obj
	op.obj = nil
	n, err := op.op.End()
	o.poisonedBy(err)
	return n, o.dataError(opMblockWrite, err)
}

// Cancel ends a write of which no operation was started. If others were begun
// since, only Abort is left.
func (op *WriteOp) Cancel() {
	op.obj = nil
	op.op.Cancel()
}

// Write implements [api.Mblock].
func (m *Mblock) Write(ctx context.Context, p []byte) (int, error) {
	o, err := m.writing(ctx)
	if err != nil {
		return 0, err
	}
	n, err := o.writer.Write(ctx, p)
	o.poisonedBy(err)
	return n, o.dataError(opMblockWrite, err)
}

// writing returns the object of a handle that can be written by.
func (m *Mblock) writing(ctx context.Context) (*object, error) {
	o, err := m.live(ctx, opMblockWrite)
	if err != nil {
		return nil, err
	}
	if o.stateNow() != uncommitted {
		return nil, &api.Error{Code: api.ESTATE, Op: opMblockWrite, Object: o.id, Detail: "the mblock is committed or being committed: it is immutable"}
	}
	return o, o.pool.writable(opMblockWrite)
}

// ReadAt implements io.ReaderAt.
func (m *Mblock) ReadAt(p []byte, off int64) (int, error) {
	return m.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext implements [api.Mblock].
func (m *Mblock) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	o, st, err := m.readable(ctx)
	if err != nil {
		return 0, err
	}
	var n int
	if st < committed {
		n, err = o.writer.ReadAt(ctx, p, off)
	} else {
		n, err = o.reader.ReadAt(ctx, p, off)
	}
	if err == nil || err == io.EOF { //nolint:errorlint // io.ReaderAt returns it bare
		return n, err
	}
	return n, o.pool.corrupted(o.dataError(opMblockRead, err))
}

// readable returns the object of a handle that can be read by, and its state: if
// it is not uncommitted, it has a reader.
func (m *Mblock) readable(ctx context.Context) (*object, objectState, error) {
	o, err := m.live(ctx, opMblockRead)
	if err != nil {
		return nil, 0, err
	}
	if err := o.drive.present(opMblockRead, o.id); err != nil {
		return nil, 0, err
	}
	st := o.stateNow()
	if st >= committed && o.reader == nil { // aborted meanwhile
		return nil, 0, noSuch(opMblockRead, o.id)
	}
	return o, st, nil
}

// stateNow is snapshot for those who need no description.
func (o *object) stateNow() objectState {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state
}

// dataError makes the error of a read or write.
func (o *object) dataError(op string, err error) error {
	if api.CodeOf(err) == api.ENOENT {
		// No pin was given: it is the object that goes, or the pool.
		if err := o.pool.alive(op); err != nil {
			return err
		}
	}
	return ioError(op, o.drive.dev, err)
}

// pin keeps the object's space, and its drive open, for I/O. It refuses when the
// object is being deleted or the pool is closed. Whoever closes the pool says so
// first and waits for the drive's holders after.
func (o *object) pin() bool {
	o.drive.dev.Hold()
	if o.pool.closed.Load() || !o.use.Pin() {
		o.drive.dev.Release()
		return false
	}
	return true
}

// unpin ends a pin. It may run where nothing may block.
func (o *object) unpin() {
	o.use.Unpin()
	if o.lingers.Load() && o.use.Pins() == 0 {
		o.pool.sched.Go("object end", o.dropUnused) // ends at once
	}
	o.drive.dev.Release()
}

// pinnedLocked says whether I/O is under way on an object without references:
// then it must stay in use, so that a delete by somebody who finds it waits for
// that I/O. The last unpin sees to it that it is looked at again.
//
// +checklocks:o.pool.usesMu
func (o *object) pinnedLocked() bool {
	o.lingers.Store(true)
	if o.use.Pins() > 0 {
		return true
	}
	o.lingers.Store(false)
	return false
}

// dropUnused is dropUnusedLocked for those who do not hold o.mu.
func (o *object) dropUnused() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dropUnusedLocked()
}
