package bdev

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/bdev/uring"
	"github.com/mpool-go/mpool/sched"
)

const (
	// wakeData marks completions of the poll of the queue's eventfd.
	wakeData = 1 << 33
	// wordData and what follows mark completions of waits for words.
	wordData = 1 << 34
)

// ringQueue is a Queue over a ring of its own, for one locked thread.
type ringQueue struct {
	sched    *sched.Sched // nil: the real world
	ring     *uring.Ring
	deferred bool // completions stay in the kernel until an Enter fetches them

	slots    []*Op    // under way in the ring
	free     []uint32 // free slots
	inflight int      // put and not reaped, in the ring or not
	refused  []*Op    // put, but wrong: they end at the next Reap
	away     []*Op    // put, for their drives' engines to start

	files      map[*Drive]int32 // registered drives
	fileSlots  []bool           // in use
	bufferUsed []bool           // in use; nil: the kernel registers none
	words      []func(error)    // waits for words
	freeWords  []uint32

	arrived arrivals     // ends of operations that the drives' engines do
	woken   atomic.Bool  // Wake was called
	wakeFD  int          // eventfd
	wakeUp  atomic.Int32 // 1: the eventfd was written and not yet read
	armed   bool         // the ring polls the eventfd

	cqes [64]uring.CQE
}

func newRingQueue(o *QueueOptions) (*ringQueue, error) {
	const best = uring.SetupSingleIssuer | uring.SetupDeferTaskrun | uring.SetupTaskrunFlag
	q := &ringQueue{files: make(map[*Drive]int32), wakeFD: -1}
	// One entry is the eventfd's.
	ring, ops, err := newRing(uint32(o.Depth+o.Words+1), best, o.MaxWorkers)
	if err != nil {
		return nil, err
	}
	q.ring = ring
	q.deferred = ring.Flags()&uring.SetupDeferTaskrun != 0
	if ops.Has(uring.OpFutexWait) {
		q.words = make([]func(error), o.Words)
		for i := range o.Words {
			q.freeWords = append(q.freeWords, uint32(i))
		}
	}
	if err := q.setUp(o); err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return q, nil
}

func (q *ringQueue) setUp(o *QueueOptions) error {
	q.slots = make([]*Op, o.Depth)
	for i := range o.Depth {
		q.free = append(q.free, uint32(o.Depth-1-i))
	}
	// What older kernels lack is only slower without.
	if q.deferred {
		if err := q.ring.RegisterRing(); err != nil && !errors.Is(err, syscall.EINVAL) {
			return err
		}
	}
	switch err := q.ring.RegisterFiles(o.Drives); {
	case err == nil:
		q.fileSlots = make([]bool, o.Drives)
	case !errors.Is(err, syscall.EINVAL):
		return err
	}
	switch err := q.ring.RegisterBuffers(o.Buffers); {
	case err == nil:
		q.bufferUsed = make([]bool, o.Buffers)
	case !errors.Is(err, syscall.EINVAL):
		return err
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	q.wakeFD = fd
	return nil
}

// deviceOf returns the device under a drive, or nil if a ring cannot use it.
func deviceOf(d *Drive) *device {
	switch e := d.engine.(type) {
	case *uringEngine:
		return e.dev
	case *preadEngine:
		return e.dev
	default:
		return nil
	}
}

// Put prepares an operation.
func (q *ringQueue) Put(o *Op) bool {
	if q.inflight == len(q.slots) {
		return false
	}
	q.inflight++
	d := o.Drive
	dev := deviceOf(d)
	if dev == nil || dev.needsIoctl(o) {
		q.away = append(q.away, o)
		return true
	}
	o.batch, o.queue, o.state.done, o.state.retries = nil, nil, 0, 0
	d.begun(o)
	if err := d.check(o); err != nil {
		o.state.err = err
		q.refused = append(q.refused, o)
		return true
	}
	o.state.slot = q.free[len(q.free)-1]
	q.free = q.free[:len(q.free)-1]
	q.slots[o.state.slot] = o
	q.entry(dev, o)
	return true
}

// entry makes a submission entry. There are more of them than slots.
func (q *ringQueue) entry(dev *device, o *Op) {
	e := q.ring.SQE()
	if e == nil {
		panic("bdev: more operations than entries of the ring")
	}
	dev.prepare(e, o, o.Fixed)
	if slot, ok := q.files[o.Drive]; ok {
		e.FD = slot
		e.Flags |= uring.SQEFixedFile
	}
}

// Submit starts what was put.
func (q *ringQueue) Submit() error {
	q.sendAway()
	q.ring.Publish()
	for n := q.ring.Pending(); n > 0; n = q.ring.Pending() {
		if err := q.enter(n, 0, 0); err != nil {
			return err
		}
	}
	return nil
}

// sendAway starts what the drives' engines have to do.
func (q *ringQueue) sendAway() {
	for i, o := range q.away {
		q.away[i] = nil
		o.batch, o.queue = nil, q
		q.arm()
		o.Drive.Start(o)
	}
	q.away = q.away[:0]
}

// collect takes the end of an operation that a drive's engine did.
func (q *ringQueue) collect(o *Op) {
	q.arrived.put(o)
	q.ringBell()
}

// Wake ends a Reap.
func (q *ringQueue) Wake() {
	q.woken.Store(true)
	q.ringBell()
}

// ringBell makes a wait in the kernel end, now or later.
func (q *ringQueue) ringBell() {
	if q.wakeUp.Swap(1) != 0 {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	for {
		if _, err := unix.Write(q.wakeFD, one[:]); !errors.Is(err, syscall.EINTR) {
			return // EAGAIN: 2^64-1 wakes are pending; one is enough
		}
	}
}

// arm lets the ring poll the eventfd.
func (q *ringQueue) arm() {
	if q.armed {
		return
	}
	e := q.ring.SQE()
	if e == nil {
		panic("bdev: no entry of the ring left for the eventfd")
	}
	e.Opcode, e.FD, e.OpFlags, e.UserData = uring.OpPollAdd, int32(q.wakeFD), unix.POLLIN, wakeData
	q.armed = true
}

// quiet takes back a bell that was heard.
func (q *ringQueue) quiet() {
	if q.wakeUp.Load() == 0 {
		return
	}
	var b [8]byte
	for {
		if _, err := unix.Read(q.wakeFD, b[:]); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	q.wakeUp.Store(0)
}

// enter enters the kernel once. EINTR is no error.
func (q *ringQueue) enter(submit, wait, flags uint32) error {
	_, err := q.ring.Enter(submit, wait, flags)
	switch {
	case err == nil || errors.Is(err, syscall.EINTR):
		return nil
	case isShortage(err): // what is pending stays so
		return q.sched.Sleep(context.Background(), shortagePause)
	case errors.Is(err, syscall.EEXIST), errors.Is(err, syscall.EBADF), errors.Is(err, syscall.EINVAL):
		// The ring, or its registration, is another thread's.
		return fmt.Errorf("the queue is used on another thread than it was made on; call runtime.LockOSThread first: %w", err)
	default:
		return fmt.Errorf("io_uring_enter: %w", err)
	}
}

// Reap finishes operations.
func (q *ringQueue) Reap(atLeast int) (int, error) { return q.reap(atLeast, false) }

// Sleep waits for anything.
func (q *ringQueue) Sleep() (int, error) { return q.reap(1, true) }

// reap waits for so many operations, or, if idle is set, until woken.
func (q *ringQueue) reap(atLeast int, idle bool) (int, error) {
	n := q.reapReady()
	for {
		q.arm()
		q.sendAway()
		q.ring.Publish()
		wait := uint32(0)
		if n < atLeast && (idle || q.inflight > 0) && len(q.refused) == 0 && !q.woken.Load() {
			// Any one completion may be the bell's.
			wait = 1
		}
		flags := uint32(0)
		if wait > 0 || (q.deferred && q.ring.NeedsEnter()) {
			flags = uring.EnterGetEvents
		}
		if pending := q.ring.Pending(); pending > 0 || flags != 0 {
			if err := q.enter(pending, wait, flags); err != nil {
				return n, err
			}
		}
		n += q.reapReady()
		if n >= atLeast || (q.inflight == 0 && !idle) || q.woken.Swap(false) {
			return n, q.Submit()
		}
	}
}

// reapReady finishes what has ended and returns how many operations that were.
func (q *ringQueue) reapReady() int {
	n := 0
	if refused := q.refused; len(refused) > 0 {
		q.refused = nil // callbacks may put more
		for _, o := range refused {
			q.inflight--
			o.finish()
			n++
		}
	}
	for {
		k := q.ring.Reap(q.cqes[:])
		for _, c := range q.cqes[:k] {
			n += q.settle(c)
		}
		if k < len(q.cqes) {
			break
		}
	}
	if q.arrived.head.Load() != nil {
		n += finishAll(q.arrived.take(), &q.inflight)
	}
	return n
}

// settle takes one completion and returns how many operations ended by it.
func (q *ringQueue) settle(c uring.CQE) int {
	if c.UserData >= wakeData {
		q.settleOther(c)
		return 0
	}
	o := q.slots[c.UserData]
	dev := deviceOf(o.Drive)
	again, err := o.settleCQE(c.Res)
	if again {
		q.entry(dev, o)
		return 0
	}
	q.slots[c.UserData] = nil
	q.free = append(q.free, uint32(c.UserData))
	if err != nil && dev.learnIoctl(o, err) {
		o.state.counted = true
		q.away = append(q.away, o)
		return 0
	}
	o.state.err = err
	q.inflight--
	o.finish()
	return 1
}

// settleOther takes a completion that is no operation's.
func (q *ringQueue) settleOther(c uring.CQE) {
	if c.UserData == wakeData {
		q.armed = false
		q.quiet()
		return
	}
	w := c.UserData - wordData
	done := q.words[w]
	q.words[w] = nil
	q.freeWords = append(q.freeWords, uint32(w))
	q.woken.Store(true)
	if c.Res < 0 {
		done(syscall.Errno(-c.Res))
		return
	}
	done(nil)
}

// InFlight returns how many operations are not yet reaped.
func (q *ringQueue) InFlight() int { return q.inflight }
