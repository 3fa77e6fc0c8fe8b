package bdev

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mpool-go/mpool/bdev/uring"
	"github.com/mpool-go/mpool/sched"
)

const (
	// submitBatch: whoever makes so many entries pending submits them, even if
	// a leader is to come.
	submitBatch = 8
	// interruptData marks the completion of the entry that interrupts a leader.
	interruptData = 1 << 32
	// aloneFor: who had the ring for himself so many times in a row probably
	// goes on so. (An operation past the ring holds one of Go's processors as
	// long as it takes, and whoever is to run there next.)
	aloneFor = 64
	// ioctlWorkers do what io_uring cannot.
	ioctlWorkers = 2
	// kickAfter is how long the leader waits, with fewer than crowd operations
	// under way, before it kicks who may have left a completion behind; then twice
	// as long, kickTurns times in all. (Later the next timer tick serves.) With
	// more under way it does not wait by the clock, which costs, but kicks in
	// passing, each kickEvery at most.
	kickAfter = 200 * time.Microsecond
	kickTurns = 5
	kickEvery = time.Millisecond
	crowd     = 4
)

// uringEngine does the I/O of one device for any number of blocking callers
// over one ring, without a thread of its own.
//
// Operations are put on the ring under mu. One of the waiting callers is the
// leader: it enters the kernel to submit what is pending and to wait, and
// completes everybody's operations. When that woke others, it stops leading:
// they will probably start the next operations, and then wait again. Who of
// them is the last to be heard of makes a waiter the leader, who submits for
// all of them and waits in one system call, on one thread; a thread that only
// submitted would be disturbed at each completion. So nobody enters the kernel
// while others are about to, and everybody else is a follower.
//
// Every operation under way has a waiter: that of its batch, or, for those that
// nobody waits for, a reaper that ends with them. And as long as anything is
// under way there is a leader, or one who was woken and will appoint one, or
// the waiter of something just put who will find that nobody leads.
//
// The kernel makes an operation's completion on the thread that submitted it,
// and would interrupt that thread each time, which is much of what a read costs
// when many are under way. The ring is made so that it does not: the completion
// comes when the thread next enters or leaves the kernel, or sleeps there. Nearly
// always it does so at once. A thread that computes does not before its next
// timer tick; so a leader who may miss something kicks all threads.
//
// Operations under way are bounded by the submission queue, and so by the
// completion queue, which is twice as long: no completion is ever lost.
type uringEngine struct {
	sched *sched.Sched // nil: the real world
	dev   *device
	slow  workers // for what only an ioctl does

	mu sched.Mutex
	// The submission side of the ring is guarded by mu, its completion side is
	// the leader's.
	ring *uring.Ring
	// +checklocks:mu
	slots []*Op // operations under way, by their completions' UserData
	// +checklocks:mu
	free []uint32 // free slots
	// +checklocks:mu
	room room
	// +checklocks:mu
	leading bool // there is a leader, or one was chosen
	// +checklocks:mu
	waiting bool // the leader waits in the kernel, or is about to
	// +checklocks:mu
	awake int // followers that were woken by a leader and not heard of since
	// +checklocks:mu
	interrupting bool // an interrupt is under way
	// +checklocks:mu
	inlining bool // a caller does an operation past the ring
	// +checklocks:mu
	alone int // how many times in a row somebody put operations on an idle ring
	// +checklocks:mu
	closed bool
	// +checklocks:mu
	followers followerList
	// +checklocks:mu
	orphans int // operations under way that nobody waits for
	// +checklocks:mu
	orphaned *sched.Completion // what their reaper waits for

	entering atomic.Int32 // callers that submit outside of mu
	breath   breath

	// The leader's own.
	cqes   [128]uring.CQE
	ended  []*Op
	kicked time.Time // when threads were kicked last
	lazy   bool      // threads have to be kicked; does not change
	fixed  bool      // the device is the ring's registered file 0; does not change
}

// newURingEngine makes the engine, or returns an error that wraps
// uring.ErrUnsupported where the kernel has no ring for us.
func newURingEngine(dev *device, o *OpenOptions) (*uringEngine, error) {
	e := &uringEngine{dev: dev}
	flags := uint32(0)
	if canKick() {
		flags = uring.SetupCoopTaskrun
	}
	// One entry is the interrupt's.
	ring, ops, err := newRing(uint32(o.QueueDepth+1), flags, o.MaxWorkers)
	if err != nil {
		return nil, err
	}
	e.lazy = ring.Flags()&uring.SetupCoopTaskrun != 0
	if e.fixed, err = registerOnly(ring, dev.fd); err != nil {
		return nil, errors.Join(err, ring.Close())
	}
	if !ops.Has(uring.OpURingCmd) {
		dev.plainDiscard.Store(true)
	}
	e.ring = ring
	e.mu.Init(nil, sched.RankQueue)
	e.slow.init(ioctlWorkers, o.QueueDepth, dev.do)
	e.slow.after = e.interrupt // the leader may wait for what a worker ended
	e.setDepth(o.QueueDepth)
	return e, nil
}

// setDepth must come before the engine is shared.
//
// +checklocksignore
func (e *uringEngine) setDepth(depth int) {
	e.room.total = depth
	e.slots = make([]*Op, depth)
	for i := range depth {
		e.free = append(e.free, uint32(depth-1-i))
	}
}

// newRing makes a ring that has every operation a device needs, with the flags
// asked for or, on kernels without them, none.
func newRing(entries, flags uint32, maxWorkers int) (*uring.Ring, *uring.Ops, error) {
	ring, err := uring.New(uring.Options{Entries: entries, Flags: flags | uring.SetupSubmitAll})
	if errors.Is(err, syscall.EINVAL) {
		ring, err = uring.New(uring.Options{Entries: entries})
	}
	if err != nil {
		return nil, nil, err
	}
	ops, err := ring.Probe()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%w: %w", uring.ErrUnsupported, err), ring.Close())
	}
	for _, op := range []uring.Opcode{
		uring.OpNop, uring.OpRead, uring.OpWrite, uring.OpReadv, uring.OpWritev,
		uring.OpFsync, uring.OpFallocate, uring.OpReadFixed, uring.OpWriteFixed, uring.OpPollAdd,
	} {
		if !ops.Has(op) {
			return nil, nil, errors.Join(fmt.Errorf("%w: no operation %d", uring.ErrUnsupported, op), ring.Close())
		}
	}
	// Linux 5.15 has the limit; without it the kernel's own, which is bounded
	// too, holds.
	if err := ring.LimitWorkers(uint32(maxWorkers), uint32(maxWorkers)); err != nil && !errors.Is(err, syscall.EINVAL) {
		return nil, nil, errors.Join(err, ring.Close())
	}
	return ring, ops, nil
}

// registerOnly makes a file the only registered one of a ring, number 0, if the
// kernel can (Linux 5.13).
func registerOnly(ring *uring.Ring, fd int) (bool, error) {
	err := ring.RegisterFiles(1)
	if errors.Is(err, syscall.EINVAL) {
		return false, nil
	}
	if err == nil {
		err = ring.SetFile(0, fd)
	}
	return err == nil, err
}

// Geometry returns what is known of the device.
func (e *uringEngine) Geometry() Geometry { return e.dev.geo }

// Name returns "io_uring".
func (e *uringEngine) Name() string { return "io_uring" }

// Start puts operations on the ring.
func (e *uringEngine) Start(ops []*Op) { e.startContext(context.Background(), ops) }

func (e *uringEngine) startContext(ctx context.Context, ops []*Op) {
	for i, o := range ops {
		if e.dev.needsIoctl(o) {
			e.slow.start(ctx, ops[i:i+1])
			continue
		}
		// The longest run that the ring takes.
		n := i + 1
		for n < len(ops) && !e.dev.needsIoctl(ops[n]) {
			n++
		}
		e.put(ctx, ops[i:n])
		if n < len(ops) {
			e.startContext(ctx, ops[n:])
		}
		return
	}
}

// put puts operations on the ring as there is room.
func (e *uringEngine) put(ctx context.Context, ops []*Op) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		cancel(ops, ErrClosed)
		return
	}
	if e.alone++; e.room.used > 0 || e.inlining {
		e.alone = 0
	}
	hurry := ops[0].batch != nil && ops[0].batch.Meanwhile != nil // it is long before anybody waits
	n := e.room.take(len(ops))
	for {
		orphans := 0
		for _, o := range ops[:n] {
			o.state.slot = e.free[len(e.free)-1]
			e.free = e.free[:len(e.free)-1]
			e.slots[o.state.slot] = o
			e.entryLocked(o)
			if o.batch == nil {
				orphans++
			}
		}
		e.ring.Publish()
		e.adoptLocked(orphans)
		ops = ops[n:]
		if len(ops) == 0 {
			break
		}
		r := e.room.wait(len(ops))
		e.submitAndUnlock(hurry)
		err := e.Await(ctx, &r.done)
		e.mu.Lock()
		if err != nil {
			e.room.leave(r)
			e.mu.Unlock()
			e.interrupt() // the places went to another, who may be the leader
			cancel(ops, err)
			return
		}
		n = r.granted
	}
	e.submitAndUnlock(hurry)
}

// entryLocked makes a submission entry for an operation. The ring has as many
// entries as there are slots, so there is one.
//
// +checklocks:e.mu
func (e *uringEngine) entryLocked(o *Op) {
	sqe := e.ring.SQE()
	if sqe == nil {
		panic("bdev: more operations than entries of the ring")
	}
	e.dev.prepare(sqe, o, 0)
	if e.fixed {
		sqe.FD = 0
		sqe.Flags |= uring.SQEFixedFile
	}
}

// adoptLocked makes sure that somebody waits for operations without a batch.
//
// +checklocks:e.mu
func (e *uringEngine) adoptLocked(n int) {
	if n == 0 {
		return
	}
	e.orphans += n
	if e.orphaned != nil {
		return
	}
	c := new(sched.Completion)
	e.orphaned = c
	go func() {
		// With a context that never ends, Await cannot fail.
		_ = e.Await(context.Background(), c) //nolint:errcheck // see above
	}()
}

// submitAndUnlock lets the kernel take what is pending, unless the next leader
// will do so in a moment and there is no hurry.
//
// +checklocksrelease:e.mu
func (e *uringEngine) submitAndUnlock(hurry bool) {
	n := e.ring.Pending()
	if n == 0 || (!hurry && !e.waiting && n < submitBatch) {
		e.mu.Unlock()
		return
	}
	e.entering.Add(1)
	e.mu.Unlock()
	e.submit(n)
	e.entering.Add(-1)
}

// submit enters until nothing is pending.
func (e *uringEngine) submit(n uint32) {
	for n > 0 {
		e.enter(n, 0, 0)
		n = e.ring.Pending()
	}
}

// shortagePause is how long to leave a kernel alone that has no memory for
// requests.
const shortagePause = time.Millisecond

// isShortage says whether the kernel had no memory for requests.
func isShortage(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.ENOMEM)
}

// enter enters the kernel once.
func (e *uringEngine) enter(submit, wait, flags uint32) {
	_, err := e.ring.Enter(submit, wait, flags)
	e.mustEnter(err)
}
