package mblock

import (
	"errors"

	"github.com/mpool-go/mpool/bdev"
)

// writePiece bounds one device operation of a write, in bytes: the kernel takes
// a larger one in several steps, for which it may have to wait.
const writePiece = 1 << 20

// WriteOp is one write under way. The zero value is ready; it may be used again,
// and then costs no allocation. Not safe for concurrent use.
//
//	err := writer.BeginWrite(&op, p)
//	for _, o := range op.Ops() { queue.Put(o) }
//	op.Sum() // or not: End does it then
//	// ... reap until all have ended
//	n, err := op.End()
type WriteOp struct {
	w      *Writer
	off    int64 // of the write's place
	size   int   // bytes of the caller's
	placed bool  // it has a place, which its end gives up
	pinned bool
	bounce []byte     // from bdev.AllocBuffer, or nil
	sums   [][]uint32 // where its checksums go, from the page of its first block on; nil: they are there

	few  [2]bdev.Op // as many as the usual write needs
	ops  []bdev.Op  // few, or more
	list []*bdev.Op // to the first of ops
	ptrs [2]*bdev.Op
}

// BeginWrite appends p, as [Writer.Write] does: it gives the write its place,
// behind those that were begun before, pins the object and fills op. It never
// blocks and starts no I/O. The caller starts all of op.Ops, waits until all have
// ended, and calls op.End; or op.Cancel, if none was started. Until then Seal
// waits, and p is the device's. The whole of p is
// written at once: callers bound it.
//
// If p's address is a multiple of 4096 bytes, the device reads p itself, but for
// what follows the last whole block, which is copied and padded. Else p is
// copied. Where p is memory that others can write to, they may change it between
// its checksum and its way to the device, whichever is first: that block is then ECORRUPT to whoever
// reads it, or the object is dropped by the activation after a crash within the
// second after its commit. It harms no other object.
//
// Errors: EFBIG (past the capacity), ESTATE (after a write that was no multiple
// of 4096 bytes, or after Seal), EIO (poisoned), ENOENT (the object is being
// deleted). Nothing is begun then, and nothing but ENOENT changes the Writer.
func (w *Writer) BeginWrite(op *WriteOp, p []byte) error {
	off, sums, err := w.reserve(int64(len(p)))
	if err != nil {
		return err
	}
	op.reset(w, len(p))
	if len(p) == 0 {
		return nil
	}
	if err := op.begin(p, off, aligned(p)); err != nil {
		w.finish(off, err)
		return err
	}
	op.sums, op.placed = sums, true
	return nil
}

// Sum computes the checksums, of what is in memory then; best while the device is
// at it. Once is enough, before End.
func (op *WriteOp) Sum() {
	if op.sums != nil {
		op.sum(op.sums)
		op.sums = nil
	}
}

// reset makes op one of size bytes that has begun nothing yet.
func (op *WriteOp) reset(w *Writer, size int) {
	op.w, op.size, op.list = w, size, op.list[:0]
	op.placed, op.sums = false, nil
}

// begin prepares the write of p at an offset that somebody has reserved, but for
// its checksums.
func (op *WriteOp) begin(p []byte, off int64, direct bool) error {
	if !op.w.cfg.pin() {
		return op.w.cfg.gone(opWrite)
	}
	op.pinned, op.off = true, off
	op.fill(p, direct)
	op.place(uint32(off / blockSize))
	return nil
}

// grow makes room for the operations of so many bytes. Whoever copies the tail
// needs one more.
func (op *WriteOp) grow(size int) {
	n := (size+writePiece-1)/writePiece + 1
	switch {
	case n <= len(op.ops):
	case n <= len(op.few):
		op.ops, op.list = op.few[:], op.ptrs[:0]
	default:
		op.ops, op.list = make([]bdev.Op, n), make([]*bdev.Op, 0, n)
	}
}

// fill makes the device operations: out of the caller's memory as far as that
// may be, the rest copied and padded.
func (op *WriteOp) fill(p []byte, direct bool) {
	op.grow(len(p))
	if direct {
		whole := p[:len(p)&^(blockSize-1)]
		p = p[len(whole):]
		op.add(whole)
	}
	if len(p) == 0 {
		return
	}
	size := (len(p) + blockSize - 1) &^ (blockSize - 1)
	op.bounce = bdev.AllocBuffer(size)
	clear(op.bounce[copy(op.bounce, p):])
	op.add(op.bounce)
}

// add adds device operations that write buf.
func (op *WriteOp) add(buf []byte) {
	for len(buf) > 0 {
		n := min(len(buf), writePiece)
		o := &op.ops[len(op.list)]
		o.Drive, o.Code, o.Buf = op.w.cfg.Drive, bdev.OpWrite, buf[:n:n]
		o.Fixed, o.Err = 0, nil
		op.list = append(op.list, o)
		buf = buf[n:]
	}
}

// place makes the operations write to the extent from a block on.
func (op *WriteOp) place(block uint32) {
	at := op.w.cfg.Extent.Offset() + int64(block)*blockSize
	for _, o := range op.list {
		o.Offset = at
		at += int64(len(o.Buf))
	}
}

// sum fills in the checksums of what is written; sums begin with the page of its
// first block.
func (op *WriteOp) sum(sums [][]uint32) {
	first := uint32(op.off / blockSize)
	base := first / PageSums * PageSums
	at := first - base
	for _, o := range op.list {
		for buf := o.Buf; len(buf) > 0; buf = buf[blockSize:] {
			ahead := uintptr(sumAhead)
			if len(buf) == blockSize {
				ahead = 0
			}
			sums[at/PageSums][at%PageSums] = op.w.seed.sum(base+at, buf[:blockSize], ahead)
			at++
		}
	}
}

// Ops returns the device operations of the write, with Drive set; of an empty
// one, none. The caller may set OnDone, User and, if the write is
// [WriteOp.Direct], Fixed.
func (op *WriteOp) Ops() []*bdev.Op { return op.list }

// Direct says whether the device reads all of the write out of the caller's
// memory.
func (op *WriteOp) Direct() bool { return len(op.list) > 0 && op.bounce == nil }

// End computes the checksums if that was not done, and gives memory, pin and
// place back. It returns how many bytes were written:
// all of p, or 0 and EIO, which poisons the Writer. It never blocks. In
// simulation it must be called by a task.
func (op *WriteOp) End() (n int, err error) {
	for _, o := range op.list {
		if o.Err != nil {
			err = op.w.cfg.ioError(opWrite, o.Err)
			break
		}
	}
	if err == nil {
		op.Sum()
	}
	op.leave(err)
	if err != nil {
		return 0, err
	}
	return op.size, nil
}

// errCancelled is why a Writer is poisoned of which a write was cancelled.
var errCancelled = errors.New("a write that had its place was never started")

// Cancel ends a write of which no operation was started. If no other write has
// begun since, it is as if this one had not; else a hole is left, which poisons
// the Writer.
func (op *WriteOp) Cancel() {
	if op.placed && op.w.unreserve(op.off, int64(op.size)) {
		op.placed = false
	}
	op.leave(errCancelled)
}

// leave ends the write.
func (op *WriteOp) leave(err error) {
	w, placed := op.w, op.placed
	op.release()
	if placed {
		op.placed = false
		w.finish(op.off, err)
	}
}

// release gives memory and pin back. The device is through with them. It may
// run where nothing may block.
func (op *WriteOp) release() {
	for _, o := range op.list {
		o.Buf = nil
	}
	op.list = op.list[:0]
	bdev.FreeBuffer(op.bounce)
	op.bounce, op.sums = nil, nil
	if op.pinned {
		op.pinned = false
		op.w.cfg.unpin()
	}
}

// unwound frees the memory of a task that a simulated power cut unwinds.
func (op *WriteOp) unwound() {
	if op.w.cfg.Sched.Cutting() {
		bdev.FreeBuffer(op.bounce)
		op.bounce = nil
	}
}
