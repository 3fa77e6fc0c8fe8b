package sched

import (
	"context"
	"sync"
)

// Cond is a condition variable whose Wait takes a context. Init it before use.
type Cond struct {
	mu  *Mutex
	sim *sim

	waiters []chan struct{} // real world, guarded by mu: each has room for one token
	tasks   []*task         // simulation
}

// waitChans recycles the channels of real-world waiters.
var waitChans = sync.Pool{New: func() any { return make(chan struct{}, 1) }}

// Init sets the world and the mutex that guards the condition.
func (c *Cond) Init(s *Sched, mu *Mutex) {
	c.mu = mu
	if s != nil {
		c.sim = s.sim
	}
}

// Wait releases the mutex, waits for Signal, Broadcast or the end of ctx, and
// takes the mutex again. It returns the context's error when that ended it.
// The caller must hold the mutex and must look at its condition again.
func (c *Cond) Wait(ctx context.Context) error {
	if c.sim != nil {
		return c.sim.condWait(ctx, c)
	}
	ch := waitChans.Get().(chan struct{})
	c.waiters = append(c.waiters, ch)
	c.mu.Unlock()
	var err error
	select {
	case <-ch:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	c.mu.Lock()
	if err != nil && !c.forget(ch) {
		// A signal chose this waiter while its context ended: it counts as
		// the signal, so that none is lost.
		<-ch
		err = nil
	}
	waitChans.Put(ch)
	return err
}

// forget removes ch from the waiters and says whether it was still there.
func (c *Cond) forget(ch chan struct{}) bool {
	for i, w := range c.waiters {
		if w == ch {
			c.waiters = append(c.waiters[:i], c.waiters[i+1:]...)
			return true
		}
	}
	return false
}

// Signal wakes one waiter, if there is one. The caller must hold the mutex.
func (c *Cond) Signal() {
	if c.sim != nil {
		c.sim.condSignal(c)
		return
	}
	if len(c.waiters) > 0 {
		c.waiters[0] <- struct{}{}
		c.waiters = append(c.waiters[:0], c.waiters[1:]...)
	}
}

// Broadcast wakes all waiters. The caller must hold the mutex.
func (c *Cond) Broadcast() {
	if c.sim != nil {
		c.sim.condBroadcast(c)
		return
	}
	for _, ch := range c.waiters {
		ch <- struct{}{}
	}
	c.waiters = c.waiters[:0]
}
