package bdev

import (
	"context"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"github.com/mpool-go/mpool/bdev/uring"
	"github.com/mpool-go/mpool/sched"
)

// follower is a waiter that is not the leader.
type follower struct {
	c          *sched.Completion
	prev, next *follower
	chosen     bool // it is the leader now
}

// followerList is a list of followers in the order of their coming, and of
// those that are free for use.
type followerList struct {
	first, last *follower
	unused      *follower
}

func (l *followerList) add(c *sched.Completion) *follower {
	f := l.unused
	if f == nil {
		f = new(follower)
	} else {
		l.unused = f.next
	}
	*f = follower{c: c, prev: l.last}
	if l.last == nil {
		l.first = f
	} else {
		l.last.next = f
	}
	l.last = f
	return f
}

// drop takes a follower out and returns whether it was chosen.
func (l *followerList) drop(f *follower) bool {
	chosen := f.chosen
	if f.prev == nil {
		l.first = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		l.last = f.prev
	} else {
		f.next.prev = f.prev
	}
	*f = follower{next: l.unused}
	l.unused = f
	return chosen
}

// choose picks the next leader and wakes it: the one that came last, because
// it will probably lead longest. Those that are done need no leading.
func (l *followerList) choose() bool {
	for f := l.last; f != nil; f = f.prev {
		if !f.c.IsDone() {
			f.chosen = true
			f.c.Poke()
			return true
		}
	}
	return false
}

// Await waits as the leader, if something is under way and there is none, or
// as a follower.
func (e *uringEngine) Await(ctx context.Context, c *sched.Completion) error {
	for !c.IsDone() {
		e.mu.Lock()
		if e.closed {
			e.mu.Unlock()
			return ErrClosed
		}
		if e.leading || e.underWayLocked() == 0 {
			f := e.followers.add(c)
			e.mu.Unlock()
			err := c.Wait(ctx)
			e.mu.Lock()
			if !e.followers.drop(f) {
				e.mu.Unlock()
				return err
			}
		}
		e.leading, e.waiting = true, false
		e.mu.Unlock()
		if err := e.lead(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// underWayLocked returns how many operations the ring has.
//
// +checklocks:e.mu
func (e *uringEngine) underWayLocked() int { return len(e.slots) - len(e.free) }

// lead submits and reaps until c is done, the context has ended or nothing is
// under way, then makes another waiter the leader. (With nothing under way it
// is somebody else who will complete c: a worker, or an Engine around this one.)
func (e *uringEngine) lead(ctx context.Context, c *sched.Completion) error {
	var stop func() bool
	defer func() {
		if stop != nil {
			stop()
		}
		e.resign()
	}()
	for {
		n := e.reap()
		if c.IsDone() {
			return nil
		}
		if n > 0 {
			// Those that were just woken may start more: one entry for all.
			runtime.Gosched()
			if e.ring.Ready() > 0 {
				continue
			}
		}
		if stop == nil && ctx.Done() != nil {
			stop = context.AfterFunc(ctx, e.interrupt)
		}
		e.mu.Lock()
		e.waiting = true
		submit := e.ring.Pending()
		idle := e.underWayLocked() == 0
		e.mu.Unlock()
		// After waiting is set: what happens from now on interrupts.
		switch {
		case c.IsDone() || idle:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		e.enter(submit, 1, uring.EnterGetEvents)
	}
}

// resign passes the lead on, and submits what was left to the leader: its
// successor may take a while to wake.
func (e *uringEngine) resign() {
	e.mu.Lock()
	// Until the next leader is awake, everybody submits himself.
	e.waiting = true
	if (e.underWayLocked() == 0 && !e.closed) || !e.followers.choose() {
		e.waiting, e.leading = false, false
	}
	e.submitAndUnlock()
}

// interrupt makes a leader that waits in the kernel come back.
func (e *uringEngine) interrupt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || !e.waiting || e.interrupting {
		return
	}
	sqe := e.ring.SQE()
	if sqe == nil {
		panic("bdev: no entry of the ring left for an interrupt")
	}
	sqe.Opcode, sqe.UserData = uring.OpNop, interruptData
	e.ring.Publish()
	e.interrupting = true
	e.submit(e.ring.Pending())
}

// reap completes the operations whose completions have come and returns how
// many completions there were. The leader calls it.
func (e *uringEngine) reap() int {
	ended := e.ended[:0]
	e.mu.Lock()
	e.waiting = false
	n := e.ring.Reap(e.cqes[:])
	again := false
	for _, c := range e.cqes[:n] {
		if c.UserData == interruptData {
			e.interrupting = false
			continue
		}
		o := e.slots[c.UserData]
		more, err := o.settleCQE(c.Res)
		if more {
			e.entryLocked(o)
			again = true
			continue
		}
		e.slots[c.UserData] = nil
		e.free = append(e.free, uint32(c.UserData))
		e.room.give(1)
		if o.batch == nil {
			e.orphans--
		}
		if err != nil && e.dev.learnIoctl(o, err) {
			e.slow.force(o)
			continue
		}
		o.state.err = err
		ended = append(ended, o)
	}
	if again {
		e.ring.Publish()
	}
	if e.orphans == 0 && e.orphaned != nil {
		e.orphaned.Done()
		e.orphaned = nil
	}
	e.mu.Unlock()
	for i, o := range ended {
		ended[i] = nil
		o.Complete(o.state.err)
	}
	e.ended = ended
	return n
}

// mustEnter judges the result of an Enter.
func (e *uringEngine) mustEnter(err error) {
	switch err {
	case nil, syscall.EINTR:
	case syscall.EAGAIN, syscall.EBUSY, syscall.ENOMEM:
		// The kernel has no memory for requests now. What is pending stays so.
		time.Sleep(time.Millisecond)
	default:
		panic(fmt.Sprintf("bdev: io_uring_enter for %s: %v", e.dev.geo.Path, err))
	}
}

// inline does flushes in the caller's goroutine: the ring would only move them
// to a kernel thread.
func (e *uringEngine) inline(o *Op) bool {
	return o.Code == OpFlush && e.slow.tryInline(o)
}

// Close closes the ring and the device. EBUSY while operations are under way.
func (e *uringEngine) Close() error {
	var c sched.Completion
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return ErrClosed
	}
	if e.room.used > 0 {
		e.mu.Unlock()
		return fmt.Errorf("close %s: operations are under way: %w", e.dev.geo.Path, syscall.EBUSY)
	}
	e.closed = true
	if e.leading {
		// The leader's work is done, but it may still touch the ring. It resigns
		// in favour of this waiter, who came last.
		f := e.followers.add(&c)
		e.mu.Unlock()
		// A context that never ends: this ends with a poke.
		_ = c.Wait(context.Background()) //nolint:errcheck // see above
		e.mu.Lock()
		e.followers.drop(f)
	}
	e.leading = true
	e.mu.Unlock()
	for e.entering.Load() > 0 {
		runtime.Gosched()
	}
	e.slow.close()
	return joinClose(e.dev.geo.Path, e.ring.Close(), e.dev.close())
}
