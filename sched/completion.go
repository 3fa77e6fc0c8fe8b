package sched

import (
	"context"
	"sync/atomic"
)

// The states of a real-world Completion.
const (
	completionIdle uint32 = iota
	completionWaited
	completionDone
)

// Completion is an event that happens once and that one task waits for. Init
// it before use; Reset makes it ready for the next use without allocating.
type Completion struct {
	state atomic.Uint32
	ch    chan struct{}

	sim    *sim
	done   bool
	waiter *task
}

// Init sets the world.
func (c *Completion) Init(s *Sched) {
	if s != nil {
		c.sim = s.sim
	}
}

// Reset makes a completed Completion usable again. Nobody may be waiting.
func (c *Completion) Reset() {
	c.state.Store(completionIdle)
	c.done = false
}

// Done completes it and wakes the waiter. It never blocks; in simulation it
// may be called from an event (see [Sched.Post]) as well as from a task.
func (c *Completion) Done() {
	if c.sim != nil {
		c.sim.complete(c)
		return
	}
	if c.state.Swap(completionDone) == completionWaited {
		c.ch <- struct{}{}
	}
}

// IsDone says whether Done was called since the last Reset.
func (c *Completion) IsDone() bool {
	if c.sim != nil {
		return c.done
	}
	return c.state.Load() == completionDone
}

// Wait returns when Done was called, or with the context's error when that
// ends first. At most one task may wait at a time; it may wait again.
func (c *Completion) Wait(ctx context.Context) error {
	if c.sim != nil {
		return c.sim.completionWait(ctx, c)
	}
	if c.ch == nil {
		c.ch = make(chan struct{}, 1)
	}
	if !c.state.CompareAndSwap(completionIdle, completionWaited) {
		return nil // done already
	}
	select {
	case <-c.ch:
		return nil
	case <-ctx.Done():
		if c.state.CompareAndSwap(completionWaited, completionIdle) {
			return context.Cause(ctx)
		}
		<-c.ch // Done came at the same moment
		return nil
	}
}
