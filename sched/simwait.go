package sched

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// What Mutex, Cond, Completion and Sleep do in a simulation.

func (m *sim) lock(l *Mutex) {
	if m.cutting {
		return
	}
	t := m.cur
	if t == nil {
		// An event: nothing else runs, and events must not find locks taken.
		panic(fmt.Sprintf("sched: lock of rank %v from an event", l.rank))
	}
	for _, r := range t.ranks {
		if r >= l.rank && l.rank != 0 {
			panic(fmt.Sprintf("sched: lock of rank %v taken while holding rank %v", l.rank, r))
		}
	}
	m.yield()
	for l.owner != nil {
		l.waiters = append(l.waiters, t)
		m.block("mutex " + l.rank.String())
	}
	l.owner = t
	t.ranks = append(t.ranks, l.rank)
}

func (m *sim) unlock(l *Mutex) {
	if m.cutting {
		return
	}
	t := m.cur
	if l.owner != t {
		panic(fmt.Sprintf("sched: unlock of rank %v by a task that does not hold it", l.rank))
	}
	l.owner = nil
	for i, v := range slices.Backward(t.ranks) {
		if v == l.rank {
			t.ranks = append(t.ranks[:i], t.ranks[i+1:]...)
			break
		}
	}
	for _, w := range l.waiters {
		m.ready(w)
	}
	l.waiters = l.waiters[:0]
	m.yield()
}

func (m *sim) condWait(ctx context.Context, c *Cond) error {
	if m.cutting {
		return ErrCut
	}
	t := m.cur
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	c.tasks = append(c.tasks, t)
	t.woken = false
	undo := m.onEnd(ctx, t)
	m.unlock(c.mu)
	for !t.woken && ctx.Err() == nil {
		m.block("condition under mutex " + c.mu.rank.String())
	}
	undo()
	if !t.woken {
		for i, w := range c.tasks {
			if w == t {
				c.tasks = append(c.tasks[:i], c.tasks[i+1:]...)
				break
			}
		}
	}
	woken := t.woken
	m.lock(c.mu)
	if !woken {
		return context.Cause(ctx)
	}
	return nil
}

func (m *sim) condSignal(c *Cond) {
	if m.cutting || len(c.tasks) == 0 {
		return
	}
	i := m.rng.IntN(len(c.tasks))
	t := c.tasks[i]
	c.tasks = append(c.tasks[:i], c.tasks[i+1:]...)
	t.woken = true
	m.ready(t)
}

func (m *sim) condBroadcast(c *Cond) {
	if m.cutting {
		return
	}
	for _, t := range c.tasks {
		t.woken = true
		m.ready(t)
	}
	c.tasks = c.tasks[:0]
}

func (m *sim) complete(c *Completion) {
	if m.cutting {
		return
	}
	c.done = true
	if c.waiter != nil {
		m.ready(c.waiter)
	}
	m.yield()
}

func (m *sim) completionWait(ctx context.Context, c *Completion) error {
	if m.cutting {
		return ErrCut
	}
	t := m.cur
	m.yield()
	if c.done {
		return nil
	}
	if c.waiter != nil {
		panic("sched: two tasks wait for one completion")
	}
	c.waiter = t
	undo := m.onEnd(ctx, t)
	for !c.done && ctx.Err() == nil {
		m.block("completion")
	}
	undo()
	c.waiter = nil
	if !c.done {
		return context.Cause(ctx)
	}
	return nil
}

func (m *sim) sleep(ctx context.Context, d time.Duration) error {
	if m.cutting {
		return ErrCut
	}
	t := m.cur
	over := false
	e := m.post(d, func() {
		over = true
		m.ready(t)
	})
	undo := m.onEnd(ctx, t)
	for !over && ctx.Err() == nil {
		m.block("sleep")
	}
	undo()
	e.dead = true
	if !over {
		return context.Cause(ctx)
	}
	return nil
}
