package mblock

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// Config says where an mblock is. It is copied; its fields do not change.
type Config struct {
	Sched    *sched.Sched
	Drive    *bdev.Drive
	Extent   layout.Extent
	ID       layout.ObjectID
	Birth    layout.BirthStamp
	Capacity int64 // bytes, 0..api.MaxMblockCapacity; a Writer takes no more

	// Pin says that I/O will touch the extent, or false: the object is going
	// away. Unpin says that it no longer does, once for each Pin that returned
	// true; it is called when an operation ends or, if its context ended the
	// wait, when the device is through, from where nothing may block. Both nil:
	// nobody asks.
	Pin   func() bool
	Unpin func()
}

func (c *Config) pin() bool { return c.Pin == nil || c.Pin() }

func (c *Config) unpin() {
	if c.Unpin != nil {
		c.Unpin()
	}
}

// Sizes of blocking reads. Two parts of a read are under way together.
const (
	directRead = 2 << 20 // bytes into the caller's memory
	bounceRead = 1 << 20 // bytes through memory of our own
)

// Reader reads a committed mblock. Safe for concurrent use.
type Reader struct {
	cfg     Config
	seed    seed
	written int64
	blocks  uint32     // of data
	inline  []uint32   // all checksums, when there are no checksum pages
	own     [][]uint32 // a Writer's: all checksums, as pages
	cache   *SumCache  // nil: pages are read each time
	verify  bool       // check what is read
	broken  error      // the record cannot be true: what every read returns
	spare   [4]atomic.Pointer[readerCall]
}

// NewReader makes a reader of a committed object. It costs little and holds
// nothing: there is no Close. cache may be nil. Of c, the capacity is not used.
// If the object's record contradicts itself, every read returns ECORRUPT.
func NewReader(c Config, o layout.Object, cache *SumCache, verify bool) *Reader {
	r := &Reader{
		cfg: c, seed: seedOf(c.Birth), written: int64(o.Written), inline: o.Sums, cache: cache, verify: verify,
	}
	switch {
	case o.Written > api.MaxMblockCapacity || BlocksFor(r.written) > c.Extent.Blocks:
		r.broken = c.corrupt(opRead, 0, nil, "the record says %d bytes, which the extent of %d blocks does not hold", o.Written, c.Extent.Blocks)
	default:
		r.blocks = dataBlocks(r.written)
		want := r.blocks
		if want > layout.MaxInlineSums {
			want = 0
		}
		if len(o.Sums) != int(want) {
			r.broken = c.corrupt(opRead, 0, nil, "the record of %d bytes has %d checksums, want %d", o.Written, len(o.Sums), want)
		}
	}
	return r
}

// Len returns the written length in bytes.
func (r *Reader) Len() int64 { return r.written }

// readerCall is what one blocking read needs. It is kept for the next one
// unless its context left it to the device.
type readerCall struct {
	op    ReadOp
	batch bdev.Batch
}

func (r *Reader) takeCall() *readerCall {
	for i := range r.spare {
		if r.spare[i].Load() == nil {
			continue
		}
		if c := r.spare[i].Swap(nil); c != nil {
			return c
		}
	}
	c := new(readerCall)
	c.batch.Detached = c.op.release
	return c
}

func (r *Reader) keepCall(c *readerCall) {
	for i := range r.spare {
		if r.spare[i].CompareAndSwap(nil, c) {
			return
		}
	}
}

// ReadAt implements io.ReaderAt, with a context. It reads any offset and
// length; at the written length it returns what there is and io.EOF. What is
// aligned to 4096 bytes (offset, and p's address) goes from the device straight
// into p, if the context cannot end the wait; p may then be filled with zeros
// past the written length. After another error the n bytes before the failed
// place are good, and the rest of p is zeros. Errors: EINVAL, ECORRUPT, EIO,
// ENOENT (the object is being deleted), ETIMEDOUT, ECANCELED.
func (r *Reader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if ctx.Err() != nil {
		return 0, r.cfg.ended(ctx, opRead)
	}
	bounce, size := r.cfg.Sched.CanEnd(ctx), bounceRead
	if !bounce && off%blockSize == 0 && aligned(p) {
		size = directRead
	}
	if max(off, 0)%blockSize+int64(len(p)) <= int64(size) { // the usual case: one part
		n, err := r.readPart(ctx, p, off, bounce)
		if err != nil && n < len(p) && !isEnd(err) {
			clear(p[n:])
		}
		return n, err
	}
	return r.readParts(ctx, p, off, size, bounce)
}

// readParts reads in parts of size bytes that begin at blocks, the first but at
// off.
func (r *Reader) readParts(ctx context.Context, p []byte, off int64, size int, bounce bool) (int, error) {
	skip := int(max(off, 0) % blockSize)
	left := int(min(int64(len(p)), max(r.written-off, 0)))
	parts := max((skip+left+size-1)/size, 1)
	start := func(part int) int { return max(part*size-skip, 0) }
	out := inLanes(r.cfg.Sched, opRead, parts, func(part int) (int, error) {
		n, err := r.readPart(ctx, p[start(part):min(start(part+1), len(p))], off+int64(start(part)), bounce)
		if isEnd(err) {
			err = nil
		}
		return n, err
	})
	done := start(out.part) + out.n
	switch {
	case out.err != nil:
		clear(p[done:])
		return done, out.err
	case done < len(p):
		return done, io.EOF
	default:
		return done, nil
	}
}

// isEnd says whether an error only says that the mblock ends there.
func isEnd(err error) bool { return err == io.EOF } //nolint:errorlint // ReadOp.End returns it bare

// aligned says whether memory begins where a device can reach it.
func aligned(p []byte) bool { return bdev.Aligned(p[:len(p)&^(blockSize-1)]) }

func (r *Reader) readPart(ctx context.Context, p []byte, off int64, bounce bool) (int, error) {
	c := r.takeCall()
	if r.cfg.Sched.Simulated() {
		defer c.op.unwound(r.cfg.Sched)
	}
	n, detached, err := c.read(ctx, r, p, off, readMode{bounce: bounce, verify: r.verify})
	if !detached {
		r.keepCall(c)
	}
	return n, err
}

// read reads and waits. If the context ended the wait, the call stays the
// device's.
func (c *readerCall) read(ctx context.Context, r *Reader, p []byte, off int64, mode readMode) (n int, detached bool, err error) {
	if err := c.op.begin(r, p, off, mode); err != nil {
		return 0, false, err
	}
	c.batch.Ops = c.op.Ops()
	err = r.cfg.Drive.Run(ctx, &c.batch)
	switch {
	case err == nil:
	case errors.Is(err, bdev.ErrDetached):
		return 0, true, r.cfg.ended(ctx, mode.name())
	case !isIOError(err) || ctx.Err() != nil:
		// Not started, or not all of it.
		c.op.Cancel()
		return 0, false, r.cfg.failure(ctx, mode.name(), err)
	}
	n, err = c.op.End()
	return n, false, err
}

// isIOError says whether an operation was started, and failed.
func isIOError(err error) bool {
	_, ok := errors.AsType[*bdev.IOError](err)
	return ok
}

// VerifyPiece is the most that one call of VerifyPiece reads, in bytes of data:
// what one checksum page is of.
const VerifyPiece = PageSums * blockSize

// Verify reads all data and checksum pages from the device, at low priority,
// and returns the first error: ECORRUPT, EIO, or as ReadAt. It verifies also
// if the reader does not.
func (r *Reader) Verify(ctx context.Context) error {
	for off := int64(0); ; off += VerifyPiece {
		if err := r.VerifyPiece(ctx, off); err != nil || off+VerifyPiece >= r.written {
			return err
		}
	}
}

// VerifyPiece is Verify of the data from a multiple of [VerifyPiece] on, up to the
// next one or the end, and of its checksums.
func (r *Reader) VerifyPiece(ctx context.Context, off int64) error {
	if r.broken != nil {
		return r.broken
	}
	if off >= r.written {
		return nil
	}
	if ctx.Err() != nil {
		return r.cfg.ended(ctx, opVerify)
	}
	buf := bdev.AllocBuffer(int(min(int64(r.blocks)*blockSize-off, VerifyPiece)))
	c := new(readerCall)
	c.batch.Detached = func() {
		c.op.release()
		bdev.FreeBuffer(buf)
	}
	if r.cfg.Sched.Simulated() {
		defer func() {
			c.op.unwound(r.cfg.Sched)
			if r.cfg.Sched.Cutting() {
				bdev.FreeBuffer(buf)
			}
		}()
	}
	// buf is ours until the device is through: no need to bounce.
	_, detached, err := c.read(ctx, r, buf, off, readMode{verify: true, scrub: true})
	if detached {
		return err
	}
	bdev.FreeBuffer(buf)
	if isEnd(err) {
		return nil
	}
	return err
}
