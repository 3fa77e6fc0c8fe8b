package sched

import (
	"context"
	"errors"
	"sync/atomic"
)

// The states of a real-world Completion.
const (
	completionIdle uint32 = iota
	completionWaited
	completionPoked
	completionDone
)

// ErrPoked is returned by [Completion.Wait] when [Completion.Poke] ended it.
var ErrPoked = errors.New("sched: woken before completion")

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

// Poke makes the Wait under way, or else the next one, return [ErrPoked],
// unless Done comes first. It never blocks. Real world only.
func (c *Completion) Poke() {
	for {
		switch c.state.Load() {
		case completionIdle:
			if c.state.CompareAndSwap(completionIdle, completionPoked) {
				return
			}
		case completionWaited:
			if c.state.CompareAndSwap(completionWaited, completionIdle) {
				c.ch <- struct{}{}
				return
			}
		default:
			return
		}
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
// ends first, or [ErrPoked]. At most one task may wait at a time; it may wait
// again.
func (c *Completion) Wait(ctx context.Context) error {
	if c.sim != nil {
		return c.sim.completionWait(ctx, c)
	}
	if c.ch == nil {
		c.ch = make(chan struct{}, 1)
	}
	if !c.state.CompareAndSwap(completionIdle, completionWaited) {
		if c.state.CompareAndSwap(completionPoked, completionIdle) {
			return ErrPoked
		}
		return nil // done already
	}
	if end := ctx.Done(); end == nil {
		<-c.ch
	} else {
		select {
		case <-c.ch:
		case <-end:
			if c.state.CompareAndSwap(completionWaited, completionIdle) {
				return context.Cause(ctx)
			}
			<-c.ch // Done or Poke came at the same moment
		}
	}
	if c.state.Load() != completionDone {
		return ErrPoked
	}
	return nil
}
