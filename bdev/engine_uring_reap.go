package bdev

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"syscall"

	"github.com/mpool-go/mpool/bdev/uring"
	"github.com/mpool-go/mpool/sched"
)

// follower is a waiter that is not the leader.
type follower struct {
	c          *sched.Completion
	prev, next *follower
	chosen     bool // it is the leader now
	woken      bool // its batch has ended, and it was counted in awake
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

// drop takes a follower out and returns what became of it.
func (l *followerList) drop(f *follower) (chosen, woken bool) {
	chosen, woken = f.chosen, f.woken
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
	return chosen, woken
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

// Await waits as the leader or as a follower.
func (e *uringEngine) Await(ctx context.Context, c *sched.Completion) error {
	return e.await(ctx, c, nil)
}

func (e *uringEngine) awaitBatch(ctx context.Context, b *Batch) error {
	return e.await(ctx, &b.done, b)
}

// await leads, if something is under way and nobody leads or is about to; else
// it follows. b is the batch that c belongs to, if any.
func (e *uringEngine) await(ctx context.Context, c *sched.Completion, b *Batch) error {
	for !c.IsDone() {
		e.mu.Lock()
		if e.closed {
			e.mu.Unlock()
			return ErrClosed
		}
		if e.leading || e.awake > 0 || e.underWayLocked() == 0 {
			chosen, err := e.followAndUnlock(ctx, c, b)
			if !chosen && errors.Is(err, sched.ErrPoked) {
				continue // meant for an earlier wait, which its context ended
			}
			if !chosen {
				return err
			}
		} else {
			e.leading = true
			e.mu.Unlock()
		}
		if err := e.lead(ctx, c); err != nil {
			return err
		}
		e.breath.take(e.sched)
	}
	return nil
}

// followAndUnlock waits until c is done, ctx has ended or this follower was
// chosen to lead.
//
// +checklocksrelease:e.mu
func (e *uringEngine) followAndUnlock(ctx context.Context, c *sched.Completion, b *Batch) (bool, error) {
	f := e.followers.add(c)
	if b != nil {
		b.follower = f
	}
	e.mu.Unlock()
	err := c.Wait(ctx)
	e.mu.Lock()
	if b != nil {
		b.follower = nil
	}
	chosen, woken := e.followers.drop(f)
	if woken {
		e.awake--
	}
	if !chosen {
		e.appointLocked()
	}
	e.mu.Unlock()
	return chosen, err
}

// appointLocked makes a follower the leader if there must be one.
//
// +checklocks:e.mu
func (e *uringEngine) appointLocked() {
	if !e.leading && e.awake == 0 && (e.underWayLocked() > 0 || e.closed) {
		e.leading = e.followers.choose()
	}
}

// underWayLocked returns how many operations the ring has.
//
// +checklocks:e.mu
func (e *uringEngine) underWayLocked() int { return len(e.slots) - len(e.free) }

// lead submits and reaps until c is done, the context has ended, nothing is
// under way (then somebody else completes c: a worker, or an Engine around this
// one), or those whose operations it completed are better placed to go on.
func (e *uringEngine) lead(ctx context.Context, c *sched.Completion) error {
	var stop func() bool
	defer func() {
		if stop != nil {
			stop()
		}
	}()
	for {
		n, awake := e.reap()
		if awake || c.IsDone() {
			e.resign()
			return nil
		}
		if n > 0 && e.ring.Ready() > 0 {
			continue
		}
		if stop == nil && ctx.Done() != nil {
			stop = context.AfterFunc(ctx, e.interrupt)
		}
		e.mu.Lock()
		e.waiting = true
		submit, underWay := e.ring.Pending(), e.underWayLocked()
		e.mu.Unlock()
		// After waiting is set: what happens from now on interrupts.
		switch {
		case underWay == 0 || c.IsDone():
			e.resign()
			return nil
		case ctx.Err() != nil:
			e.resign()
			return context.Cause(ctx)
		}
		e.wait(submit, underWay >= crowd)
	}
}

// resign gives up the lead.
func (e *uringEngine) resign() {
	e.mu.Lock()
	e.waiting, e.leading = false, false
	e.appointLocked()
	e.mu.Unlock()
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

// reap completes the operations whose completions have come. It returns how
// many completions there were, and whether somebody who was woken by them has
// not been heard of yet. The leader calls it.
func (e *uringEngine) reap() (n int, awake bool) {
	ended := e.ended[:0]
	var aside []*Op // for ioctl: only discards that were under way when it was learned
	e.mu.Lock()
	e.waiting = false
	n = e.ring.Reap(e.cqes[:])
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
			aside = append(aside, o)
			continue
		}
		o.state.err = err
		e.countLocked(o.batch)
		ended = append(ended, o)
	}
	if again {
		e.ring.Publish()
	}
	if e.orphans == 0 && e.orphaned != nil {
		e.orphaned.Done()
		e.orphaned = nil
	}
	awake = e.awake > 0
	e.mu.Unlock()
	for _, o := range aside {
		e.slow.force(o)
	}
	for i, o := range ended {
		ended[i] = nil
		if o.batch != nil {
			o.batch.ending--
		}
		o.Complete(o.state.err)
	}
	e.ended = ended
	return n, awake
}

// countLocked notes that an operation of the batch has ended, and counts its
// follower as awake if that was the last.
//
// +checklocks:e.mu
func (e *uringEngine) countLocked(b *Batch) {
	if b == nil {
		return
	}
	b.ending++
	if f := b.follower; f != nil && !f.woken && b.ending == b.pending.Load() {
		f.woken = true
		e.awake++
	}
}

// mustEnter judges the result of an Enter.
func (e *uringEngine) mustEnter(err error) {
	switch {
	case err == nil || errors.Is(err, syscall.EINTR):
	case isShortage(err): // what is pending stays so
		// With a context that never ends, Sleep cannot fail.
		_ = e.sched.Sleep(context.Background(), shortagePause) //nolint:errcheck // see above
	default:
		panic(fmt.Sprintf("bdev: io_uring_enter for %s: %v", e.dev.geo.Path, err))
	}
}

// inline does flushes in the caller's goroutine, because the ring would only
// move them to a kernel thread; and reads and writes of who has the drive for
// himself, because then the ring has nothing to share and is the slower way.
func (e *uringEngine) inline(o *Op) bool {
	switch o.Code {
	case OpFlush:
		done := e.slow.tryInline(o)
		if done {
			e.breath.take(e.sched)
		}
		return done
	case OpDiscard:
		return false
	case OpRead, OpWrite:
	}
	e.mu.Lock()
	if e.closed || e.inlining || e.room.used > 0 || e.alone < aloneFor {
		e.mu.Unlock()
		return false
	}
	e.inlining = true
	e.mu.Unlock()
	o.Drive.begun(o)
	err := e.dev.transfer(o)
	e.mu.Lock()
	e.inlining = false
	e.mu.Unlock()
	o.Complete(err)
	e.breath.take(e.sched)
	return true
}

// Close closes the ring and the device. EBUSY while operations are under way.
func (e *uringEngine) Close() error {
	var c sched.Completion
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return ErrClosed
	}
	if e.room.used > 0 || e.inlining {
		e.mu.Unlock()
		return fmt.Errorf("close %s: operations are under way: %w", e.dev.geo.Path, syscall.EBUSY)
	}
	e.closed = true
	if e.leading || e.awake > 0 {
		// The leader's work is done, but it may still touch the ring. It resigns
		// in favour of this waiter, who came last. The context never ends, and
		// nobody completes c: it was chosen when this returns.
		_, _ = e.followAndUnlock(context.Background(), &c, nil) //nolint:errcheck // see above
	} else {
		e.leading = true
		e.mu.Unlock()
	}
	for e.entering.Load() > 0 {
		runtime.Gosched()
	}
	var file error
	if e.fixed {
		// The kernel takes a ring down some time after it is closed: the device
		// must be free at once.
		file = e.ring.UnregisterFiles()
	}
	return joinClose(e.dev.geo.Path, e.slow.close(), file, e.ring.Close(), e.dev.close())
}
