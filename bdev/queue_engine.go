package bdev

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mpool-go/mpool/sched"
)

// arrivals is a stack of operations that have ended but are not yet finished.
// Anybody may put, without a lock and so from a simulation's event; one takes.
type arrivals struct {
	head atomic.Pointer[Op]
}

func (a *arrivals) put(o *Op) {
	for {
		h := a.head.Load()
		o.state.next = h
		if a.head.CompareAndSwap(h, o) {
			return
		}
	}
}

// take returns all that arrived, first come first, linked by state.next.
func (a *arrivals) take() *Op {
	var first *Op
	for o := a.head.Swap(nil); o != nil; {
		next := o.state.next
		o.state.next = first
		first, o = o, next
	}
	return first
}

// finishAll finishes a list of operations, each after counting inflight down,
// and returns how many they were. Callbacks may put others.
func finishAll(o *Op, inflight *int) int {
	n := 0
	for o != nil {
		next := o.state.next
		o.state.next = nil
		*inflight--
		o.finish()
		o = next
		n++
	}
	return n
}

// engineQueue is a Queue over the drives' own engines. Over one of io_uring Submit
// and Reap may also wait for room in that.
type engineQueue struct {
	sched    *sched.Sched
	depth    int
	put      []*Op // to be started
	inflight int

	arrived arrivals
	waiting atomic.Bool // the owner is about to wait
	woken   atomic.Bool
	event   sched.Completion // something arrived
}

func newEngineQueue(s *sched.Sched, depth int) *engineQueue {
	q := &engineQueue{sched: s, depth: depth}
	q.event.Init(s)
	return q
}

// Put takes an operation.
func (q *engineQueue) Put(o *Op) bool {
	if q.inflight == q.depth {
		return false
	}
	q.inflight++
	q.put = append(q.put, o)
	return true
}

// Submit starts what was put.
func (q *engineQueue) Submit() error {
	for i, o := range q.put {
		q.put[i] = nil
		o.batch, o.queue = nil, q
		o.Drive.startNow(o)
	}
	q.put = q.put[:0]
	return nil
}

// collect takes an operation's end.
func (q *engineQueue) collect(o *Op) {
	q.arrived.put(o)
	q.signal()
}

func (q *engineQueue) signal() {
	if q.waiting.Swap(false) {
		q.event.Done()
	}
}

// Wake ends a Reap.
func (q *engineQueue) Wake() {
	q.woken.Store(true)
	q.signal()
}

// Reap finishes operations.
func (q *engineQueue) Reap(atLeast int) (int, error) {
	return q.reap(context.Background(), atLeast, false)
}

// Sleep waits for anything.
func (q *engineQueue) Sleep() (int, error) { return q.reap(context.Background(), 1, true) }

// SleepFor waits for anything, but not long.
func (q *engineQueue) SleepFor(d time.Duration) (int, error) {
	ctx, cancel := q.sched.WithTimeout(context.Background(), d)
	defer cancel()
	n, err := q.reap(ctx, 1, true)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return n, err
}

// reap waits for so many operations, or, if idle is set, until woken.
func (q *engineQueue) reap(ctx context.Context, atLeast int, idle bool) (int, error) {
	if err := q.Submit(); err != nil {
		return 0, err
	}
	n := 0
	for {
		n += finishAll(q.arrived.take(), &q.inflight)
		// What the callbacks put is started now, not after a wait for others.
		if err := q.Submit(); err != nil {
			return n, err
		}
		if n >= atLeast || (q.inflight == 0 && !idle) || q.woken.Swap(false) {
			return n, nil
		}
		q.event.Reset()
		q.waiting.Store(true)
		// What arrived before that has not signalled.
		if (q.arrived.head.Load() != nil || q.woken.Load()) && q.waiting.Swap(false) {
			continue
		}
		if err := q.event.Wait(ctx); err != nil {
			q.waiting.Store(false)
			return n, fmt.Errorf("wait for I/O: %w", err)
		}
	}
}

// InFlight returns how many operations are not yet reaped.
func (q *engineQueue) InFlight() int { return q.inflight }

// Close ends the queue.
func (q *engineQueue) Close() error {
	if q.inflight > 0 {
		return fmt.Errorf("close queue: %d operations are under way: %w", q.inflight, syscall.EBUSY)
	}
	return nil
}
