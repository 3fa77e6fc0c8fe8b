package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// Latency is how long operations take: Min to Max, and Tail times that in one
// of TailOdds cases.
type Latency struct {
	Min, Max time.Duration // Max less than Min means Min
	Tail     int           // factor; 0: 20
	TailOdds int           // 0: 64
}

// OpenOptions are how a disk is opened. The zero value is a device of random
// latency in a simulation, one that answers at once without.
type OpenOptions struct {
	// ReadOnly refuses writes and discards.
	ReadOnly bool
	// Shared opens the disk as by another path that nobody can tell to be the
	// same disk: besides those who have it open, and not keeping others out.
	Shared bool
	// Inline makes operations end before Start returns also in a simulation.
	Inline bool
	// Latencies; a zero value is that of an ordinary solid-state drive.
	Read, Write, Flush, Discard Latency
	// OnIO is called at each boundary. When it returns true the machine stops:
	// no operation ends any more in a simulation, each gets ENODEV outside one.
	// It runs in the task that starts the operation or, at ends, in an event.
	// It may call Survivor and Clone, and sched's Cut, but must not block or do
	// I/O.
	OnIO func(b Boundary) (stop bool)
	// Seed feeds the dice when there is no simulation.
	Seed uint64
}

func (o *OpenOptions) fill() {
	set := func(l *Latency, least, most time.Duration) {
		if l.Min == 0 && l.Max == 0 {
			l.Min, l.Max = least, most
		}
		l.Max = max(l.Max, l.Min)
		if l.Tail == 0 {
			l.Tail = 20
		}
		if l.TailOdds == 0 {
			l.TailOdds = 64
		}
	}
	set(&o.Read, 20*time.Microsecond, 150*time.Microsecond)
	set(&o.Write, 10*time.Microsecond, 100*time.Microsecond)
	set(&o.Flush, 100*time.Microsecond, time.Millisecond)
	set(&o.Discard, 50*time.Microsecond, 500*time.Microsecond)
}

// Open opens a disk exclusively and returns a drive over it. In a simulation s
// is its scheduler; else s is nil and operations end before they return. The
// drive's Close releases the disk, and so do PowerCut and Kill.
// Errors: bdev.ErrBusy while it is open, ENODEV when it has vanished.
func Open(s *sched.Sched, d *Disk, o OpenOptions) (*bdev.Drive, error) {
	e, err := OpenEngine(s, d, o)
	if err != nil {
		return nil, err
	}
	return bdev.NewDrive(s, e), nil
}

// OpenEngine is Open for those who make the drive themselves.
func OpenEngine(s *sched.Sched, d *Disk, o OpenOptions) (bdev.Engine, error) {
	o.fill()
	e := &engine{sched: s, disk: d, opts: o, inline: o.Inline || !s.Simulated()}
	if s.Simulated() {
		e.rng = s.Rand()
	} else {
		e.rng = rand.New(rand.NewPCG(o.Seed, 0x51ed270b7a14))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.vanished:
		return nil, fmt.Errorf("open %s: %w", d.opts.Name, syscall.ENODEV)
	case !o.Shared && slices.ContainsFunc(d.holders, func(h *engine) bool { return !h.opts.Shared }):
		return nil, fmt.Errorf("open %s: %w: another process has it open", d.opts.Name, bdev.ErrBusy)
	}
	if len(d.holders) == 0 {
		d.underway = nil // of a clone: they never arrived
	}
	d.holders = append(d.holders, e)
	return e, nil
}

// releaseLocked takes the disk from those who have it open.
//
// +checklocks:d.mu
func (d *Disk) releaseLocked() {
	for _, h := range d.holders {
		h.dead = true
	}
	d.holders = nil
}

// engine is one open of a disk. Its fields are guarded by the disk's mutex.
type engine struct {
	sched  *sched.Sched
	disk   *Disk
	opts   OpenOptions
	inline bool
	rng    *rand.Rand

	boundaries uint64
	inflight   int
	stopped    bool // by OnIO
	closed     bool
	dead       bool // by a kill or power cut
}

// transfer is one operation under way.
type transfer struct {
	op      *bdev.Op
	verdict verdict
	write   uint64 // OpWrite, OpDiscard: the write's start number
	ends    uint64 // OpFlush: writes that had ended when it began
}

// Name returns "sim".
func (e *engine) Name() string { return "sim" }

// Geometry describes the disk.
func (e *engine) Geometry() bdev.Geometry {
	g := e.disk.geometry()
	g.ReadOnly = e.opts.ReadOnly
	return g
}

// Await waits as a completion does: nobody has to reap.
func (e *engine) Await(ctx context.Context, c *sched.Completion) error { return c.Wait(ctx) }

// Close releases the disk. EBUSY while operations are under way. After a cut,
// in the defers of unwound tasks, it does nothing: the process is dead.
func (e *engine) Close() error {
	if e.sched.Cutting() {
		return nil
	}
	d := e.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.closed || e.dead {
		e.closed = true
		return nil
	}
	if e.inflight > 0 && !e.stopped {
		return fmt.Errorf("close %s: %d operations are under way: %w", d.opts.Name, e.inflight, syscall.EBUSY)
	}
	e.closed = true
	d.holders = slices.DeleteFunc(d.holders, func(h *engine) bool { return h == e })
	return nil
}

// Start begins the operations. After a cut it does nothing.
func (e *engine) Start(ops []*bdev.Op) {
	for _, o := range ops {
		if e.sched.Cutting() {
			return
		}
		e.start(o)
	}
}

func (e *engine) start(o *bdev.Op) {
	d := e.disk
	stop := e.boundary(o, PhaseStart, nil)
	d.mu.Lock()
	if err := e.refuseLocked(stop); err != nil {
		d.mu.Unlock()
		if !stop || !e.sched.Simulated() {
			o.Complete(err)
		}
		return
	}
	e.inflight++
	t := &transfer{op: o, verdict: d.judgeLocked(o, e.rng)}
	fetch, end := time.Duration(0), time.Duration(0)
	switch o.Code {
	case bdev.OpWrite:
		w := d.beginLocked(o.Offset, o.Size(), false)
		t.write = w.start
		if !e.inline {
			end = max(e.draw(e.opts.Write)+t.verdict.delay, 1)
			fetch = e.fetchPlan(w, o, end)
		}
	case bdev.OpDiscard:
		w := d.beginLocked(o.Offset, o.Length, true)
		t.write = w.start
		d.discardPiecesLocked(w, e.rng)
		end = e.draw(e.opts.Discard) + t.verdict.delay
	case bdev.OpFlush:
		t.ends = d.ends
		end = e.draw(e.opts.Flush) + t.verdict.delay
	case bdev.OpRead:
		end = e.draw(e.opts.Read) + t.verdict.delay
	}
	d.mu.Unlock()
	if e.inline {
		e.end(t)
		return
	}
	if fetch > 0 {
		e.sched.Post(fetch, func() { e.fetch(t) })
	}
	e.sched.Post(end, func() { e.end(t) })
}

// refuseLocked says why an operation does not start. Whether it makes sense the
// drive has checked.
//
// +checklocks:e.disk.mu
func (e *engine) refuseLocked(stop bool) error {
	d := e.disk
	switch {
	case e.closed:
		return bdev.ErrClosed
	case stop || e.dead || d.vanished:
		return syscall.ENODEV
	default:
		return nil
	}
}

// draw returns an operation's latency.
func (e *engine) draw(l Latency) time.Duration {
	if e.inline {
		return 0
	}
	t := l.Min + time.Duration(e.rng.Int64N(int64(l.Max-l.Min)+1))
	if e.rng.IntN(l.TailOdds) == 0 {
		t *= time.Duration(l.Tail)
	}
	return t
}

// fetchPlan decides when the device reads a write's buffer: a part of it at the
// start, or not, and more at the returned time, if it is not 0. The rest is
// read at the end.
func (e *engine) fetchPlan(w *write, o *bdev.Op, end time.Duration) time.Duration {
	switch e.rng.IntN(4) {
	case 0:
		w.fetch(o, w.size)
	case 1:
		w.fetch(o, e.rng.Int64N(w.size/sectorSize+1)*sectorSize)
	case 2:
		return time.Duration(e.rng.Int64N(int64(end)) + 1)
	}
	return 0
}

// fetch reads more of a write's buffer.
func (e *engine) fetch(t *transfer) {
	d := e.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.dead || e.stopped {
		return
	}
	for _, w := range d.underway {
		if w.start == t.write {
			w.fetch(t.op, w.fetched+(e.rng.Int64N((w.size-w.fetched)/sectorSize)+1)*sectorSize)
		}
	}
}

// end ends an operation: an event, or in line.
func (e *engine) end(t *transfer) {
	d := e.disk
	d.mu.Lock()
	if e.stopped {
		d.mu.Unlock()
		return
	}
	e.inflight--
	var err error
	switch {
	case e.dead:
		err = syscall.ENODEV
	case d.vanished:
		t.verdict.err = syscall.ENODEV
		err = e.finishLocked(t)
	default:
		err = e.finishLocked(t)
	}
	d.mu.Unlock()
	if e.boundary(t.op, PhaseEnd, err) {
		if e.sched.Simulated() {
			return
		}
		err = syscall.ENODEV
	}
	t.op.Complete(err)
}

// boundary tells the observer, and says whether the machine has stopped.
func (e *engine) boundary(o *bdev.Op, p Phase, err error) bool {
	d := e.disk
	d.mu.Lock()
	e.boundaries++
	b := Boundary{N: e.boundaries, Disk: d, Op: o, Phase: p, Err: err}
	stopped := e.stopped
	d.mu.Unlock()
	if stopped || e.opts.OnIO == nil {
		return stopped
	}
	if !e.opts.OnIO(b) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e.stopped = true
	return true
}
