package bdev

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/mpool-go/mpool/sched"
)

// Geometry is what is known of a device.
type Geometry struct {
	Path           string
	Size           int64 // bytes; a multiple of LogicalSector
	LogicalSector  int   // bytes: 512 or 4096; the unit of I/O
	PhysicalSector int   // bytes: what the device writes at once
	Regular        bool  // a regular file, not a block device
	Discard        bool  // OpDiscard does something
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
	// returns. Start may block while the engine's queue is full.
	Start(ops []*Op)
	// Await returns when the completion is done, or with the context's error.
	// The caller may be made to reap completions, its own and others'.
	Await(ctx context.Context, c *sched.Completion) error
	// Close closes the device. No operation may be under way.
	Close() error
}

// Stats counts what a drive did since it was opened.
type Stats struct {
	Reads, Writes, Flushes, Discards uint64
	ReadBytes, WriteBytes            uint64
	Errors, FlushFailures            uint64
}

// Drive is an open device. Safe for concurrent use.
type Drive struct {
	sched  *sched.Sched
	engine Engine
	geo    Geometry

	reads, writes, flushes, discards atomic.Uint64
	readBytes, writeBytes            atomic.Uint64
	errors                           atomic.Uint64
	flushFailures                    atomic.Uint64
	inflight                         atomic.Int64

	flush flusher
}

// NewDrive makes a drive over an engine, which it owns from then on.
func NewDrive(s *sched.Sched, e Engine) *Drive {
	d := &Drive{sched: s, engine: e, geo: e.Geometry()}
	d.flush.init(s, d)
	return d
}

// Geometry returns what is known of the device.
func (d *Drive) Geometry() Geometry { return d.geo }

// Path returns the device's path.
func (d *Drive) Path() string { return d.geo.Path }

// EngineName returns what does the I/O: "io_uring", "pread" or "sim".
func (d *Drive) EngineName() string { return d.engine.Name() }

// Stats returns a snapshot of the counters.
func (d *Drive) Stats() Stats {
	return Stats{
		Reads: d.reads.Load(), Writes: d.writes.Load(), Flushes: d.flushes.Load(), Discards: d.discards.Load(),
		ReadBytes: d.readBytes.Load(), WriteBytes: d.writeBytes.Load(),
		Errors: d.errors.Load(), FlushFailures: d.flushFailures.Load(),
	}
}

// InFlight returns how many operations are under way.
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

func (d *Drive) ended(o *Op) {
	if o.Err != nil {
		d.errors.Add(1)
	}
	d.inflight.Add(-1)
}

// check says what is wrong with an operation before it is started.
func (d *Drive) check(o *Op) error {
	size := o.Size()
	sector := int64(d.geo.LogicalSector)
	switch {
	case o.Code == OpFlush:
		return nil
	case o.Offset < 0 || size <= 0 || o.Offset+size > d.geo.Size:
		return fmt.Errorf("outside the device of %d bytes", d.geo.Size)
	case o.Offset%sector != 0 || size%sector != 0:
		return fmt.Errorf("not aligned to the sector size %d", sector)
	}
	return nil
}

// Start begins operations that end on their own: each has an OnDone or nobody
// cares. See [Drive.Run] for those that somebody waits for.
func (d *Drive) Start(ops ...*Op) {
	start := ops[:0:len(ops)]
	for _, o := range ops {
		o.Drive = d
		d.begun(o)
		if err := d.check(o); err != nil {
			o.Complete(err)
			continue
		}
		start = append(start, o)
	}
	if len(start) > 0 {
		d.engine.Start(start)
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

	pending atomic.Int32
	gaveUp  atomic.Bool
	done    sched.Completion
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
// the first failed operation's error, or, when the context ends first, an error
// that wraps ErrDetached and the context's error: operations are then still
// under way and Batch.Detached will be called.
func (d *Drive) Run(ctx context.Context, b *Batch) error {
	if len(b.Ops) == 0 {
		return nil
	}
	b.done.Init(d.sched)
	b.done.Reset()
	b.gaveUp.Store(false)
	b.pending.Store(int32(len(b.Ops)))
	for _, o := range b.Ops {
		o.batch = b
	}
	// Start gets a list of its own: the batch's must survive.
	d.Start(append(make([]*Op, 0, len(b.Ops)), b.Ops...)...)
	if err := d.engine.Await(ctx, &b.done); err != nil {
		if !b.gaveUp.Swap(true) {
			d.reapLater(b)
			return fmt.Errorf("%s: %w: %w", d.Path(), ErrDetached, err)
		}
		// The last operation ended at the same moment.
		if err := d.engine.Await(context.WithoutCancel(ctx), &b.done); err != nil {
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

// reapLater sees to it that somebody waits for the rest of an abandoned batch,
// for engines whose waiters do the reaping. The task ends with the batch.
func (d *Drive) reapLater(b *Batch) {
	d.sched.Go("bdev reap", func() {
		// With a context that never ends, Await cannot fail.
		_ = d.engine.Await(context.Background(), &b.done) //nolint:errcheck // see above
	})
}
