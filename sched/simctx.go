package sched

import (
	"context"
	"runtime/debug"
	"time"
)

func stack() []byte { return debug.Stack() }

// simCtx is a context of the simulation. Its Done channel is nil: only calls
// into this package can wait for it, and they ask onEnd to be woken.
type simCtx struct {
	parent   context.Context
	m        *sim
	deadline time.Time
	err      error
	children []*simCtx
	waiters  []*task
	timer    *event
}

type simCtxKey struct{}

func (c *simCtx) Done() <-chan struct{} { return nil }

func (c *simCtx) Err() error { return c.err }

func (c *simCtx) Deadline() (time.Time, bool) {
	if !c.deadline.IsZero() {
		return c.deadline, true
	}
	return c.parent.Deadline()
}

func (c *simCtx) Value(key any) any {
	if key == (simCtxKey{}) {
		return c
	}
	return c.parent.Value(key)
}

func (m *sim) withCancel(parent context.Context) (context.Context, context.CancelFunc) {
	c := &simCtx{parent: parent, m: m}
	if p, ok := parent.Value(simCtxKey{}).(*simCtx); ok {
		if p.err != nil {
			c.err = p.err
		} else {
			p.children = append(p.children, c)
		}
	}
	return c, func() { c.end(context.Canceled) }
}

func (m *sim) withTimeout(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := m.withCancel(parent)
	c := ctx.(*simCtx)
	c.deadline = m.now.Add(d)
	if p, ok := parent.Deadline(); ok && p.Before(c.deadline) {
		c.deadline = p
	}
	if d <= 0 {
		c.end(context.DeadlineExceeded)
		return c, cancel
	}
	c.timer = m.post(d, func() { c.end(context.DeadlineExceeded) })
	return c, cancel
}

func (c *simCtx) end(err error) {
	if c.err != nil || c.m.cutting {
		return
	}
	c.err = err
	if c.timer != nil {
		c.timer.dead = true
	}
	for _, t := range c.waiters {
		c.m.ready(t)
	}
	c.waiters = nil
	for _, child := range c.children {
		child.end(err)
	}
	c.children = nil
}

// onEnd makes the task ready when ctx ends, until the returned function is
// called.
func (m *sim) onEnd(ctx context.Context, t *task) func() {
	c, ok := ctx.Value(simCtxKey{}).(*simCtx)
	if !ok {
		if ctx.Done() != nil {
			panic("sched: a context from outside the simulation is waited for")
		}
		return func() {}
	}
	if c.err == nil {
		c.waiters = append(c.waiters, t)
	}
	return func() {
		for i, w := range c.waiters {
			if w == t {
				c.waiters = append(c.waiters[:i], c.waiters[i+1:]...)
				return
			}
		}
	}
}

// CanEnd says whether a wait with ctx may end before what it waits for. Where it
// cannot, a device may be given the caller's own memory.
func (s *Sched) CanEnd(ctx context.Context) bool {
	if ctx.Done() != nil {
		return true
	}
	if s == nil {
		return false
	}
	_, simulated := ctx.Value(simCtxKey{}).(*simCtx)
	return simulated
}
