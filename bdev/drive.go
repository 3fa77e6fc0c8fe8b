package bdev

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/mpool-go/mpool/sched"
)

// Geometry is what is known of a device.
type Geometry struct {
	Path           string
	Size           int64 // bytes; a multiple of LogicalSector
	LogicalSector  int   // bytes: 512 or 4096; the unit of I/O
	PhysicalSector int   // bytes: what the device writes at once
	Regular        bool  // a regular file, not a block device
	ReadOnly       bool  // opened for reading only
	Discard        bool  // OpDiscard does something; else it gets EOPNOTSUPP
	DiscardUnit    int64 // bytes: granularity of discard, 0 if none
	WriteCache     bool  // writes are volatile until flushed
	FUA            bool  // the queue has FUA writes
}

// Engine does the operations of one device. Implementations: io_uring,
// pread/pwrite, bdev/sim.
type Engine interface {
	Geometry() Geometry
	// Name returns "io_uring", "pread" or "sim".
	Name() string
	// Start begins the operations. Each ends with a call of Op.Complete, from
	// any goroutine (in simulation: from an event) and possibly before Start
	// returns. Start may block while the engine's queue is full. The slice is
	// the caller's again when Start returns.
	Start(ops []*Op)
	// Await returns when the completion is done, or with the context's error.
	// The caller may be made to reap completions, its own and others'.
	Await(ctx context.Context, c *sched.Completion) error
	// Close closes the device. No operation may be under way.
	Close() error
}

// batcher is an Engine that knows batches. startContext is a Start that gives up
// waiting for room when the context ends, and completes what it did not start
// with the context's error. awaitBatch is Await for a batch.
type batcher interface {
	startContext(ctx context.Context, ops []*Op)
	awaitBatch(ctx context.Context, b *Batch) error
}

// forcer is an Engine that can start an operation without waiting for room.
type forcer interface{ startNow(o *Op) }

// inliner is an Engine that can do some operations in the caller's goroutine,
// faster than by Start and Await, but for as long as they take. It returns
// false if it would not do this one now; else it has counted (Drive.begun) and
// completed it.
type inliner interface {
	inline(o *Op) bool
}

// Stats counts what a drive did since it was opened.
type Stats struct {
	Reads, Writes, Flushes, Discards uint64
	ReadBytes, WriteBytes            uint64
	Errors, FlushFailures            uint64
	InFlight                         int64 // operations under way now
}

// Drive is an open device. Safe for concurrent use.
type Drive struct {
	sched  *sched.Sched
	engine Engine
	geo    Geometry

	batcher batcher // the engine, if it is one
	inliner inliner // the engine, if it is one

	reads, writes, flushes, discards atomic.Uint64
	readBytes, writeBytes            atomic.Uint64
	errors                           atomic.Uint64
	flushFailures                    atomic.Uint64
	failures                         atomic.Uint64
	watch                            atomic.Pointer[func(code OpCode, err error)]
	inflight                         atomic.Int64
	held                             atomic.Int64                     // see Hold
	idle                             atomic.Pointer[sched.Completion] // of Quiesce

	flush flusher
}

// NewDrive makes a drive over an engine, which it owns from then on.
func NewDrive(s *sched.Sched, e Engine) *Drive {
	d := &Drive{sched: s, engine: e, geo: e.Geometry()}
	d.batcher, _ = e.(batcher)
	d.inliner, _ = e.(inliner)
	d.flush.init(s, d)
	return d
}

// Geometry returns what is known of the device.
func (d *Drive) Geometry() Geometry { return d.geo }

// Path returns the device's path.
func (d *Drive) Path() string { return d.geo.Path }

// Sched returns the world the drive lives in: nil is the real one.
func (d *Drive) Sched() *sched.Sched { return d.sched }

// EngineName returns what does the I/O: "io_uring", "pread" or "sim".
func (d *Drive) EngineName() string { return d.engine.Name() }

// Stats returns a snapshot of the counters.
func (d *Drive) Stats() Stats {
	return Stats{
		Reads: d.reads.Load(), Writes: d.writes.Load(), Flushes: d.flushes.Load(), Discards: d.discards.Load(),
		ReadBytes: d.readBytes.Load(), WriteBytes: d.writeBytes.Load(),
		Errors: d.errors.Load(), FlushFailures: d.flushFailures.Load(), InFlight: d.inflight.Load(),
	}
}

// Failures returns how many writes and flushes the device failed since it was
// opened.
func (d *Drive) Failures() uint64 { return d.failures.Load() }

// Watch has f called for each write and flush that the device fails from now
// on, before anybody who waits for the operation is told. f runs where
// operations end: it must not block or take a lock.
func (d *Drive) Watch(f func(code OpCode, err error)) { d.watch.Store(&f) }

// note counts a write or flush that the device, and not we, failed.
func (d *Drive) note(code OpCode, err error) {
	var errno syscall.Errno
	if code != OpWrite && code != OpFlush || !errors.As(err, &errno) || errno == syscall.EINVAL || d.geo.ReadOnly {
		return
	}
	d.failures.Add(1)
	if f := d.watch.Load(); f != nil {
		(*f)(code, err)
	}
}

// InFlight returns how many operations are under way: those of which OnDone has
// not returned.
func (d *Drive) InFlight() int64 { return d.inflight.Load() }

// Close closes the device. The caller has waited for all its operations.
func (d *Drive) Close() error { return d.engine.Close() }

// begun counts an operation in. Engines of Queues call it too, through Start.
func (d *Drive) begun(o *Op) {
	d.inflight.Add(1)
	switch o.Code {
	case OpRead:
		d.reads.Add(1)
		d.readBytes.Add(uint64(o.Size()))
	case OpWrite:
		d.writes.Add(1)
		d.writeBytes.Add(uint64(o.Size()))
	case OpFlush:
		d.flushes.Add(1)
	case OpDiscard:
		d.discards.Add(1)
	}
}

// ended counts an operation out.
func (d *Drive) ended(failed bool) {
	if failed {
		d.errors.Add(1)
	}
	if d.inflight.Add(-1) == 0 {
		d.tellIdle()
	}
}

// check says what is wrong with an operation before it is started: EINVAL,
// EROFS or EOPNOTSUPP, with the reason.
func (d *Drive) check(o *Op) error {
	size := o.Size()
	sector := int64(d.geo.LogicalSector)
	switch o.Code {
	case OpFlush:
		return nil
	case OpRead:
	case OpWrite, OpDiscard:
		if d.geo.ReadOnly {
			return fmt.Errorf("the drive was opened read-only: %w", syscall.EROFS)
		}
		if o.Code == OpDiscard && !d.geo.Discard {
			return fmt.Errorf("the device cannot discard: %w", syscall.EOPNOTSUPP)
		}
	default:
		return fmt.Errorf("no operation has the code %d: %w", o.Code, syscall.EINVAL)
	}
	switch {
	case o.Offset < 0 || size <= 0 || o.Offset > d.geo.Size-size:
		return fmt.Errorf("outside the device of %d bytes: %w", d.geo.Size, syscall.EINVAL)
	case o.Offset%sector != 0 || size%sector != 0:
		return fmt.Errorf("offset and length must be multiples of the sector size %d: %w", sector, syscall.EINVAL)
	case o.Code == OpDiscard:
		return nil
	case o.Buf != nil:
		return d.checkMemory(o.Buf)
	}
	for _, v := range o.Vec {
		if err := d.checkMemory(v); err != nil {
			return err
		}
	}
	return nil
}

func (d *Drive) checkMemory(p []byte) error {
	sector := d.geo.LogicalSector
	if len(p) == 0 || (int(address(p))|len(p))%sector != 0 {
		return fmt.Errorf("memory of %d bytes at %#x is not aligned to the sector size %d; use AllocBuffer: %w",
			len(p), address(p), sector, syscall.EINVAL)
	}
	return nil
}

// admit counts the operations in and returns those that may be started. It
// completes the others.
func (d *Drive) admit(ops []*Op) []*Op {
	for i, o := range ops {
		o.Drive, o.state.done, o.state.retries = d, 0, 0
		if !o.state.counted {
			d.begun(o)
		}
		o.state.counted = false
		err := d.check(o)
		if err == nil {
			continue
		}
		// The slice is the caller's: leave it as it is.
		rest := d.admit(ops[i+1:])
		good := append(append(make([]*Op, 0, len(ops)), ops[:i]...), rest...)
		o.Complete(err)
		return good
	}
	return ops
}

// Start begins operations that end on their own: each has an OnDone or nobody
// cares. It waits while the device's queue is full. See [Drive.Run] for those
// that somebody waits for.
func (d *Drive) Start(ops ...*Op) {
	if ops = d.admit(ops); len(ops) > 0 {
		d.engine.Start(ops)
	}
}

// startNow is Start for a Queue, which has bounds of its own: who serves many drives
// must not wait for room with one that hangs.
func (d *Drive) startNow(o *Op) {
	e, ok := d.engine.(forcer)
	if !ok {
		d.Start(o)
		return
	}
	if ops := d.admit([]*Op{o}); len(ops) > 0 {
		e.startNow(o)
	}
}

// Batch is a set of operations that are started together and waited for
// together, by one task. The zero value is ready; a Batch may be used again
// after Run returned without ErrDetached.
type Batch struct {
	Ops []*Op
	// Detached is called once, when the last operation has ended, if Run gave
	// up waiting for it (and only then). Until then the device may touch the
	// operations' memory. It must not block.
	Detached func()
	// Meanwhile, if set, is called by Run before it waits: when the operations are
	// started, if there are several. So the caller works while the device does.
	// It is not called when nothing was started because the context had ended.
	Meanwhile func()

	pending atomic.Int32
	gaveUp  atomic.Bool
	done    sched.Completion
	start   []*Op // Run's copy of Ops, which engines may keep until Start returns
	few     [4]*Op

	// The io_uring engine's: who waits, and how many operations have ended of
	// which pending does not yet know.
	follower *follower
	ending   int32
}

func (b *Batch) opDone() {
	if b.pending.Add(-1) != 0 {
		return
	}
	if b.gaveUp.Swap(true) && b.Detached != nil {
		b.Detached()
	}
	b.done.Done()
}

// Run starts the batch's operations and waits until all have ended. It returns
// the first failed operation's error; the context's error when nothing was
// started because the context had ended already; or, when it ends later, an
// error that wraps ErrDetached and the context's error: operations are then
// still under way and Batch.Detached will be called.
func (d *Drive) Run(ctx context.Context, b *Batch) error {
	if len(b.Ops) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: I/O not started: %w", d.Path(), context.Cause(ctx))
	}
	if len(b.Ops) == 1 && b.Meanwhile != nil {
		b.Meanwhile() // a single operation may be done here
	}
	if !d.tryInline(ctx, b) {
		if err := d.runBatch(ctx, b); err != nil {
			return err
		}
	}
	for _, o := range b.Ops {
		if o.Err != nil {
			return o.Err
		}
	}
	return nil
}

// tryInline does a batch of one operation here, if the engine can and nobody
// needs to be told before it ends.
func (d *Drive) tryInline(ctx context.Context, b *Batch) bool {
	if d.inliner == nil || len(b.Ops) != 1 || ctx.Done() != nil {
		return false
	}
	o := b.Ops[0]
	o.batch = nil
	o.Drive, o.state.done, o.state.retries = d, 0, 0
	if d.check(o) != nil {
		return false // runBatch refuses it as any other
	}
	return d.inliner.inline(o)
}

func (d *Drive) runBatch(ctx context.Context, b *Batch) error {
	b.done.Init(d.sched)
	b.done.Reset()
	b.gaveUp.Store(false)
	b.pending.Store(int32(len(b.Ops)))
	for _, o := range b.Ops {
		o.batch = b
	}
	if b.start == nil {
		b.start = b.few[:0]
	}
	b.start = append(b.start[:0], b.Ops...)
	ops := d.admit(b.start)
	switch {
	case len(ops) == 0:
	case d.batcher != nil:
		d.batcher.startContext(ctx, ops)
	default:
		d.engine.Start(ops)
	}
	if len(b.Ops) > 1 && b.Meanwhile != nil {
		b.Meanwhile()
	}
	err := d.await(ctx, b)
	if err == nil {
		return nil
	}
	if !b.gaveUp.Swap(true) {
		d.reapLater(b)
		return fmt.Errorf("%s: %w: %w", d.Path(), ErrDetached, err)
	}
	// The last operation ended at the same moment.
	return d.await(context.WithoutCancel(ctx), b)
}

func (d *Drive) await(ctx context.Context, b *Batch) error {
	if d.batcher != nil {
		return d.batcher.awaitBatch(ctx, b)
	}
	return d.engine.Await(ctx, &b.done)
}

// reapLater sees to it that somebody waits for the rest of an abandoned batch,
// for engines whose waiters do the reaping. The task ends with the batch.
func (d *Drive) reapLater(b *Batch) {
	d.sched.Go("bdev reap", func() {
		// With a context that never ends, it cannot fail.
		_ = d.await(context.Background(), b) //nolint:errcheck // see above
	})
}
