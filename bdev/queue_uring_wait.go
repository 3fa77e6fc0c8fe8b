package bdev

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/mpool-go/mpool/bdev/uring"
)

const (
	// yieldAfter: Go's scheduler takes the processor of a goroutine that has not
	// yielded for 10 ms from it at every look (each 20 to 100 µs) that finds it in
	// a system call, where this one is most of the time, and starts a thread to
	// run there, for nothing. That costs a tenth of a core and more. A yield is a
	// hand-over to another thread and back, 10 to 100 µs, because the goroutine is
	// bound to its thread; so it is done as seldom as serves.
	yieldAfter = 8 * time.Millisecond
	yieldWaits = 8 // waits that there must have been meanwhile

	// maxBells is how many completions one wait in the kernel is for at most. The
	// eventfd is polled as many times, so that a bell is as many completions.
	maxBells = 16
)

// judge says which errors of an Enter are errors.
func (q *ringQueue) judge(err error) error {
	switch {
	case err == nil || errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.ETIME):
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
func (q *ringQueue) Reap(atLeast int) (int, error) { return q.reap(atLeast, false, time.Time{}) }

// Sleep waits for anything.
func (q *ringQueue) Sleep() (int, error) { return q.reap(1, true, time.Time{}) }

// SleepFor waits for anything, but not long.
func (q *ringQueue) SleepFor(d time.Duration) (int, error) {
	return q.reap(1, true, q.sched.Now().Add(d))
}

// reap waits for so many operations, or, if idle is set, until woken; if end is
// set, until then.
func (q *ringQueue) reap(atLeast int, idle bool, end time.Time) (int, error) {
	n := 0
	for {
		q.sendAway()
		late := false
		// What has ended already need not be waited for.
		need := atLeast - n - q.ring.Ready() - len(q.refused)
		if need > 0 && (idle || q.inflight > 0) && q.arrived.head.Load() == nil && !q.woken.Load() {
			var err error
			if late, err = q.wait(min(need, max(q.inflight, 1)), end); err != nil {
				return n, err
			}
		} else if err := q.poll(); err != nil {
			return n, err
		}
		n += q.reapReady()
		if n >= atLeast || (q.inflight == 0 && !idle) || q.woken.Swap(false) || late {
			return n, nil
		}
	}
}

// poll submits what is pending and fetches what has ended.
func (q *ringQueue) poll() error {
	q.ring.Publish()
	flags := uint32(0)
	if q.deferred && q.ring.NeedsEnter() {
		flags = uring.EnterGetEvents
	}
	pending := q.ring.Pending()
	if pending == 0 && flags == 0 {
		return nil
	}
	_, err := q.ring.Enter(pending, 0, flags)
	return q.judge(err)
}

// wait submits what is pending and waits for so many completions, or fewer; or
// until end, if that is set. It says whether end has come. A bell is as many
// completions as are waited for, but a word is one.
func (q *ringQueue) wait(count int, end time.Time) (late bool, _ error) {
	if err := q.yield(); err != nil {
		return false, err
	}
	count = min(count, maxBells)
	if len(q.freeWords) < len(q.words) {
		count = 1
	}
	q.arm(count)
	q.ring.Publish()
	var err error
	if end.IsZero() {
		_, err = q.ring.Enter(q.ring.Pending(), uint32(count), uring.EnterGetEvents)
		return false, q.judge(err)
	}
	timeout := end.Sub(q.sched.Now())
	if timeout <= 0 {
		return true, q.poll()
	}
	_, err = q.ring.EnterTimed(q.ring.Pending(), uint32(count), timeout)
	return false, q.judge(err)
}

// yield lets Go's scheduler in if it is time; see yieldAfter. Waits that are
// long, and so few, are not what this is about.
func (q *ringQueue) yield() error {
	if q.waits++; q.waits < yieldWaits {
		return nil
	}
	if now := q.sched.Now(); now.Sub(q.yielded) < yieldAfter {
		return nil
	}
	if err := q.poll(); err != nil { // nothing pending is to wait for that
		return err
	}
	q.sched.Yield()
	q.yielded, q.waits = q.sched.Now(), 0
	return nil
}
