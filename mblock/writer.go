package mblock

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// Writer is an uncommitted mblock. Safe for concurrent use.
type Writer struct {
	cfg      Config // its Pin and Unpin count in inflight
	seed     seed
	inflight atomic.Int64

	mu      sched.Mutex
	changed sched.Cond // open shrank, err was set, or sealing ended
	// +checklocks:mu
	next int64 // bytes given to writes so far; the next one's offset
	// +checklocks:mu
	open []span // writes under way, by offset
	// +checklocks:mu
	sums [][]uint32 // the checksum of each block before next, by page
	// +checklocks:mu
	ticket bdev.Ticket // taken before the first write
	// +checklocks:mu
	closed bool // Seal was called: nothing is written any more
	// +checklocks:mu
	sealing bool // a Seal is at work
	// +checklocks:mu
	sealed *Sealed // the result of the Seal that succeeded
	// +checklocks:mu
	err error // the first failure: poisoned
}

// span is a range of bytes.
type span struct{ from, to int64 }

// NewWriter makes the Writer of a new, empty mblock. The extent must hold
// BlocksFor(Capacity) blocks and be nobody else's. It holds no resources but
// memory: 4 bytes for each block written.
func NewWriter(c Config) *Writer {
	if c.Capacity < 0 || c.Capacity > api.MaxMblockCapacity || BlocksFor(c.Capacity) > c.Extent.Blocks {
		panic(fmt.Sprintf("mblock: a capacity of %d bytes in an extent of %d blocks", c.Capacity, c.Extent.Blocks))
	}
	w := &Writer{cfg: c, seed: seedOf(c.Birth)}
	w.cfg.Pin = func() bool {
		if !c.pin() {
			return false
		}
		w.inflight.Add(1)
		return true
	}
	w.cfg.Unpin = func() {
		w.inflight.Add(-1)
		c.unpin()
	}
	w.mu.Init(c.Sched, sched.RankObject)
	w.changed.Init(c.Sched, &w.mu)
	return w
}

// InFlight returns how many reads and groups of writes the device is at.
func (w *Writer) InFlight() int64 { return w.inflight.Load() }

// Err returns nil, or why the Writer is poisoned: then only giving the mblock
// up is left.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Len returns how many bytes were given to writes so far, ended or not.
func (w *Writer) Len() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next
}

// Write appends p. Places are given in the order of the calls; many writes may
// be under way. Every write but the last must be a multiple of 4096 bytes. It
// returns len(p), or 0 and an error: EFBIG (past the capacity; nothing is
// written), ESTATE (after a write that was no multiple, or after Seal), ENOENT
// (the object is being deleted), EIO, or ETIMEDOUT and ECANCELED. When those
// last three come after the write was given its place, the Writer is poisoned.
// Memory aligned to 4096 bytes goes to the device as it is, if the context
// cannot end the wait; its content must not change meanwhile, or a later read
// finds it corrupt. Else p is copied.
func (w *Writer) Write(ctx context.Context, p []byte) (int, error) {
	if ctx.Err() != nil {
		return 0, w.cfg.ended(ctx, opWrite)
	}
	off, sums, err := w.reserve(int64(len(p)))
	if err != nil || len(p) == 0 {
		return 0, err
	}
	err = w.transfer(ctx, p, off, sums)
	w.finish(off, err)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// reserve gives a write of n bytes its place and the checksum pages from the
// one of its first block on.
func (w *Writer) reserve(n int64) (off int64, sums [][]uint32, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
		return 0, nil, w.poisonedLocked(opWrite)
	case w.closed:
		return 0, nil, w.refused(api.ESTATE, "the mblock is committed or being committed: it is immutable")
	case n > w.cfg.Capacity-w.next:
		return 0, nil, w.refused(api.EFBIG, fmt.Sprintf("%d bytes do not fit: %d of the capacity of %d are written; allocate a larger mblock",
			n, w.next, w.cfg.Capacity))
	case n == 0:
		return w.next, nil, nil
	case w.next%blockSize != 0:
		return 0, nil, w.refused(api.ESTATE, fmt.Sprintf("the write before ended at byte %d: every write but the last must be a multiple of %d bytes",
			w.next, blockSize))
	}
	if w.next == 0 {
		w.ticket = w.cfg.Drive.Ticket()
	}
	off = w.next
	w.next += n
	w.open = append(w.open, span{off, w.next})
	blocks := dataBlocks(w.cfg.Capacity)
	for page := uint32(len(w.sums)); page*PageSums < dataBlocks(w.next); page++ {
		w.sums = append(w.sums, make([]uint32, sumsIn(blocks, page)))
	}
	return off, w.sums[off/(PageSums*blockSize):], nil
}

// refused makes the error of a write that was given no place.
func (w *Writer) refused(code api.Code, detail string) error {
	return &api.Error{Code: code, Op: opWrite, Object: w.cfg.ID, Detail: detail}
}

// unreserve takes the place of a write of n bytes at an offset back, if it is the
// last one.
func (w *Writer) unreserve(off, n int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := len(w.open) - 1
	if w.next != off+n || w.err != nil || last < 0 || w.open[last].from != off {
		return false
	}
	w.open = w.open[:last]
	w.next = off
	w.changed.Broadcast()
	return true
}

// finish ends the write at an offset.
func (w *Writer) finish(off int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.open {
		if w.open[i].from == off {
			w.open = append(w.open[:i], w.open[i+1:]...)
			break
		}
	}
	if err != nil {
		w.poisonLocked(err)
	}
	w.changed.Broadcast()
}

// poisonLocked remembers the first failure.
//
// +checklocks:w.mu
func (w *Writer) poisonLocked(err error) {
	if w.err == nil {
		w.err = err
	}
	w.changed.Broadcast()
}

// poisonedLocked makes the error of a call on a poisoned Writer.
//
// +checklocks:w.mu
func (w *Writer) poisonedLocked(op string) error {
	return &api.Error{
		Code: api.EIO, Op: op, Object: w.cfg.ID, Err: w.err,
		Detail: "an earlier write of the mblock failed: abort it and write it anew",
	}
}

// ReadAt reads what writes that have ended wrote, verified, as [Reader.ReadAt]
// does. Where the first write under way begins, it ends, with io.EOF; behind
// that write it reads on, for offsets there. EIO when poisoned.
func (w *Writer) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	r, err := w.reader(off)
	if err != nil {
		return 0, err
	}
	return r.ReadAt(ctx, p, off)
}

// BeginRead is [Reader.BeginRead] of what ReadAt would read. It allocates a
// little.
func (w *Writer) BeginRead(op *ReadOp, p []byte, off int64) error {
	r, err := w.reader(off)
	if err != nil {
		return err
	}
	return r.BeginRead(op, p, off)
}

// reader makes a reader of what can be read from an offset on.
func (w *Writer) reader(off int64) (*Reader, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.poisonedLocked(opRead)
	}
	end := w.next
	for _, s := range w.open {
		if off < s.to {
			end = max(s.from, off)
			break
		}
	}
	return &Reader{cfg: w.cfg, seed: w.seed, written: end, blocks: dataBlocks(end), own: w.sums, verify: true}, nil
}

// Sizes of the parts of a blocking write. Two of them are under way together.
const (
	directPart = 4 << 20 // bytes out of the caller's memory
	bouncePart = 2 << 20 // bytes copied
)

// transfer writes p at its place and fills in the checksums, of which the first
// page is the one of p's first block.
func (w *Writer) transfer(ctx context.Context, p []byte, off int64, sums [][]uint32) error {
	direct, size := !w.cfg.Sched.CanEnd(ctx) && aligned(p), bouncePart
	if direct {
		size = directPart
	}
	base := off / (PageSums * blockSize)
	return inLanes(w.cfg.Sched, opWrite, (len(p)+size-1)/size, func(part int) (int, error) {
		from := part * size
		piece, at := p[from:min(from+size, len(p))], off+int64(from)
		return len(piece), w.transferPart(ctx, piece, direct, at, sums[at/(PageSums*blockSize)-base:])
	}).err
}

// transferPart writes a part at its offset.
func (w *Writer) transferPart(ctx context.Context, p []byte, direct bool, off int64, sums [][]uint32) error {
	g := new(group)
	g.batch.Detached = g.release
	g.reset(w, len(p))
	if w.cfg.Sched.Simulated() {
		defer g.unwound()
	}
	if err := g.begin(p, off, direct); err != nil {
		return err
	}
	g.batch.Meanwhile = func() { g.sum(sums) }
	return g.run(ctx, opWrite)
}

// group is a write that a task waits for.
type group struct {
	WriteOp
	batch bdev.Batch
}

// newGroup makes a group for size bytes. The caller has pinned the object; the
// pin ends with the I/O.
func (w *Writer) newGroup(size int) *group {
	g := new(group)
	g.batch.Detached = g.release
	g.reset(w, size)
	g.grow(size)
	g.pinned = true
	return g
}

// run starts the group's operations and waits. If the context ended the wait,
// the group stays the device's.
func (g *group) run(ctx context.Context, op string) error {
	g.batch.Ops = g.list
	err := g.w.cfg.Drive.Run(ctx, &g.batch)
	if errors.Is(err, bdev.ErrDetached) {
		return g.w.cfg.ended(ctx, op)
	}
	g.release()
	if err != nil {
		return g.w.cfg.failure(ctx, op, err)
	}
	return nil
}
