package sched

import (
	"context"
	"runtime"
	"time"
)

// Sched gives tasks, time and deadlines. The nil *Sched is the real world and
// is what production uses. Safe for concurrent use.
type Sched struct {
	sim *sim
}

// Go starts fn as a task of its own. name appears in the simulator's deadlock
// reports. The caller owns the task: it must know when the task ends.
func (s *Sched) Go(name string, fn func()) {
	if s != nil {
		s.sim.spawn(name, fn)
		return
	}
	go fn()
}

// Now returns the current time: the machine's, or the simulation's, which
// starts at [Epoch].
func (s *Sched) Now() time.Time {
	if s != nil {
		return s.sim.now
	}
	return time.Now() //nolint:forbidigo // this is the clock that others take
}

// Sleep returns after d, or with the context's error when that ends first.
func (s *Sched) Sleep(ctx context.Context, d time.Duration) error {
	if s != nil {
		return s.sim.sleep(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Point is a place between lock-free steps where the simulator may run another
// task. It does nothing in the real world.
func (s *Sched) Point() {
	if s != nil {
		s.sim.yield()
	}
}

// Yield lets the other tasks that can run go first. A task that has woken many
// uses it to find what they do next.
func (s *Sched) Yield() {
	if s != nil {
		s.sim.yield()
		return
	}
	runtime.Gosched()
}

// WithTimeout is context.WithTimeout on this clock.
func (s *Sched) WithTimeout(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if s != nil {
		return s.sim.withTimeout(parent, d)
	}
	return context.WithTimeout(parent, d)
}

// WithCancel is context.WithCancel, known to the simulator.
func (s *Sched) WithCancel(parent context.Context) (context.Context, context.CancelFunc) {
	if s != nil {
		return s.sim.withCancel(parent)
	}
	return context.WithCancel(parent)
}
