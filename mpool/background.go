package mpool

import (
	"context"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/sched"
)

// background runs what must come to its end even if nobody waits for it any
// more: a log's writes would otherwise land in whatever its extent holds next.
// What runs here is bounded by the drive; deactivation waits for it.
type background struct {
	sched *sched.Sched

	mu   sched.Mutex
	cond sched.Cond // something has ended
	// +checklocks:mu
	running int
}

func (b *background) init(s *sched.Sched) {
	b.sched = s
	b.mu.Init(s, sched.RankQueue)
	b.cond.Init(s, &b.mu)
}

// run calls f and returns its error; or, when ctx ends first, left and the
// context's error: f then goes on, and late, if it is not nil, is called after
// it.
func (b *background) run(ctx context.Context, name string, f func() error, late func()) (left bool, err error) {
	if !b.sched.CanEnd(ctx) {
		return false, f()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var done, gone bool // under b.mu
	var result error
	b.startLocked(name, func() {
		r := f()
		b.mu.Lock()
		done, result = true, r
		tell := gone
		b.cond.Broadcast()
		b.mu.Unlock()
		if tell && late != nil {
			late()
		}
	})
	for !done {
		if ended := b.cond.Wait(ctx); ended != nil && !done {
			gone = true
			return true, ended
		}
	}
	return false, result
}

// start runs f as a task.
func (b *background) start(name string, f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.startLocked(name, f)
}

// +checklocks:b.mu
func (b *background) startLocked(name string, f func()) {
	b.running++
	b.sched.Go(name, func() {
		f()
		b.mu.Lock()
		b.running--
		b.cond.Broadcast()
		b.mu.Unlock()
	})
}

// wait returns when nothing is running.
func (b *background) wait(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.running > 0 {
		if err := b.cond.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// gate lets one in at a time. Unlike a mutex, the wait for it ends with a
// context, and another task may leave than the one that entered.
type gate struct {
	mu   sched.Mutex
	cond sched.Cond // taken has ended
	// +checklocks:mu
	taken bool
}

func (g *gate) init(s *sched.Sched, rank sched.Rank) {
	g.mu.Init(s, rank)
	g.cond.Init(s, &g.mu)
}

// enter waits until nobody is in. Errors: the context's, as an api error.
func (g *gate) enter(ctx context.Context, op string) error {
	if err := timely(ctx, op); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.taken {
		if err := g.cond.Wait(ctx); err != nil {
			return api.ContextError(op, err)
		}
	}
	g.taken = true
	return nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.taken = false
	g.cond.Signal()
}
