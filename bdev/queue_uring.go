package bdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/bdev/uring"
	"github.com/mpool-go/mpool/sched"
)

const (
	// wakeData marks completions of the poll of the queue's eventfd.
	wakeData = 1 << 33
	// wordData and what follows mark completions of waits for words.
	wordData = 1 << 34
	// cancelData marks completions of what ends such waits.
	cancelData = 1 << 35
)

// ringQueue is a Queue over a ring of its own, for one locked thread.
type ringQueue struct {
	sched    *sched.Sched // nil: the real world
	ring     *uring.Ring
	deferred bool      // completions stay in the kernel until an Enter fetches them
	yielded  time.Time // when Go's scheduler was last let in
	waits    int       // since then

	slots    []*Op    // under way in the ring
	free     []uint32 // free slots
	inflight int      // put and not reaped, in the ring or not
	refused  []*Op    // put, but wrong: they end at the next Reap
	away     []*Op    // put, for their drives' engines to start

	files     map[*Drive]int32 // registered drives
	known     knownDrive       // the last one looked up
	fileSlots slotSet
	buffers   slotSet    // empty: the kernel registers none
	words     []wordWait // waits for words
	freeWords []uint32

	arrived arrivals     // ends of operations that the drives' engines do
	woken   atomic.Bool  // Wake was called
	wakeFD  int          // eventfd
	wakeUp  atomic.Int32 // 1: the eventfd was written and not yet read
	armed   int          // polls of the eventfd under way in the ring

	cqes [64]uring.CQE
}

// knownDrive is what a queue knows of a drive: nearly always the next operation
// is on the same.
type knownDrive struct {
	drive *Drive
	dev   *device // nil: a ring cannot use it
	slot  int32   // where it is registered, or -1
}

func newRingQueue(o *QueueOptions) (*ringQueue, error) {
	const best = uring.SetupSingleIssuer | uring.SetupDeferTaskrun | uring.SetupTaskrunFlag
	q := &ringQueue{files: make(map[*Drive]int32), wakeFD: -1}
	ring, ops, err := newRing(uint32(o.Depth+o.Words+maxBells), best, o.MaxWorkers)
	if err != nil {
		return nil, err
	}
	q.ring = ring
	q.deferred = ring.Flags()&uring.SetupDeferTaskrun != 0
	if ops.Has(uring.OpFutexWait) {
		q.words = make([]wordWait, o.Words)
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
		q.fileSlots = newSlotSet(o.Drives)
	case !errors.Is(err, syscall.EINVAL):
		return err
	}
	switch err := q.ring.RegisterBuffers(o.Buffers); {
	case err == nil:
		q.buffers = newSlotSet(o.Buffers)
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

// deviceOf returns the device under a drive, or nil if a ring cannot or is not to
// use it.
func deviceOf(d *Drive) *device {
	switch e := d.engine.(type) {
	case *uringEngine:
		return e.dev
	case *preadEngine:
		if !e.dev.noRing {
			return e.dev
		}
	}
	return nil
}

// Put prepares an operation.
func (q *ringQueue) Put(o *Op) bool {
	if q.inflight == len(q.slots) {
		return false
	}
	q.inflight++
	d := o.Drive
	dev := q.lookUp(d).dev
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
	q.entry(o)
	return true
}

// lookUp returns what the queue knows of a drive, until the next call.
func (q *ringQueue) lookUp(d *Drive) *knownDrive {
	if q.known.drive != d {
		slot, ok := q.files[d]
		if !ok {
			slot = -1
		}
		q.known = knownDrive{drive: d, dev: deviceOf(d), slot: slot}
	}
	return &q.known
}

// entry makes a submission entry. There are more of them than slots.
func (q *ringQueue) entry(o *Op) {
	e := q.ring.SQE()
	if e == nil {
		panic("bdev: more operations than entries of the ring")
	}
	k := q.lookUp(o.Drive)
	k.dev.prepare(e, o, o.Fixed)
	if k.slot >= 0 {
		e.FD = k.slot
		e.Flags |= uring.SQEFixedFile
	}
}

// Submit starts what was put.
func (q *ringQueue) Submit() error {
	q.sendAway()
	q.ring.Publish()
	for n := q.ring.Pending(); n > 0; n = q.ring.Pending() {
		_, err := q.ring.Enter(n, 0, 0)
		if err := q.judge(err); err != nil {
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
		q.arm(1)
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

// arm lets the ring poll the eventfd, so many times: each makes a completion.
func (q *ringQueue) arm(times int) {
	for ; q.armed < times; q.armed++ {
		e := q.ring.SQE()
		if e == nil {
			panic("bdev: no entry of the ring left for the eventfd")
		}
		e.Opcode, e.FD, e.OpFlags, e.UserData = uring.OpPollAdd, int32(q.wakeFD), unix.POLLIN, wakeData
	}
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
	again, err := o.settleCQE(c.Res)
	if again {
		q.entry(o)
		return 0
	}
	q.slots[c.UserData] = nil
	q.free = append(q.free, uint32(c.UserData))
	if err != nil && q.lookUp(o.Drive).dev.learnIoctl(o, err) {
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
	switch c.UserData {
	case wakeData:
		q.armed--
		q.quiet()
		return
	case cancelData:
		return // what it has ended, if anything, tells of it
	}
	w := c.UserData - wordData
	done := q.words[w].done
	q.words[w] = wordWait{}
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
