package scope

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// The bounds of what waits; see [Options].
const (
	DefaultWaiting = 4096
	DefaultPassed  = 16
)

// scheduler lets tasks begin as the task limits of their scopes allow: high before
// medium before low, and within a priority in the order in which they came, but for
// those whose own scope is full.
type scheduler struct {
	m *Manager

	mu sync.Mutex
	// +checklocks:mu
	queues [3][]*Task // high, medium, low
	// +checklocks:mu
	passed [3]int // by higher ones, while somebody waits
	// +checklocks:mu
	waiting int
}

// Task is a unit of work that has begun. Its Done ends it.
type Task struct {
	Span // for what the task uses

	kind  Kind
	begun chan struct{} // closed when it has begun, or never can
	err   error         // why not; read when begun is closed
}

// BeginTask waits until a task of the priority (TasksHigh, TasksMedium, TasksLow) may
// begin in the scope, or until the context ends. Higher priorities go first, but when
// Options.Passed of them have begun while a lower one waited, that is next. It returns a
// *LimitError at once if too many wait, and ErrClosed if the scope is closed. Done of
// what it returns ends the task.
func (s *Scope) BeginTask(ctx context.Context, priority Kind) (*Task, error) {
	if priority.total() != Tasks || priority == Tasks {
		return nil, fmt.Errorf("%w: %v is no priority of tasks", ErrInvalid, priority)
	}
	span, err := s.BeginSpan()
	if err != nil {
		return nil, err
	}
	t := &Task{Span: span, kind: priority, begun: make(chan struct{})}
	if err := s.m.tasks.run(ctx, t); err != nil {
		_ = span.Done() //nolint:errcheck // nobody else has it
		return nil, err
	}
	return t, nil
}

// run returns when a task has begun.
func (q *scheduler) run(ctx context.Context, t *Task) error {
	if err := q.enter(t); err != nil {
		return err
	}
	select {
	case <-t.begun:
		return t.err
	case <-ctx.Done():
	}
	if q.leave(t) {
		return context.Cause(ctx)
	}
	<-t.begun // it has begun meanwhile
	return t.err
}

// enter queues a task, and begins what may begin.
func (q *scheduler) enter(t *Task) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting >= q.m.opt.Waiting {
		return &LimitError{
			Scope: t.s.name, Kind: t.kind, Used: int64(q.waiting), Asked: 1, Limit: int64(q.m.opt.Waiting),
			Origin: "tasks that wait", Setting: q.m.opt.Setting(t.s.name, t.kind),
		}
	}
	i := t.kind - TasksHigh
	q.queues[i] = append(q.queues[i], t)
	q.waiting++
	q.m.waiting.Add(1)
	q.dispatch()
	return nil
}

// leave takes a task out that has not begun, and says whether it was there.
func (q *scheduler) leave(t *Task) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := t.kind - TasksHigh
	at := slices.Index(q.queues[i], t)
	if at < 0 {
		return false
	}
	q.remove(int(i), at)
	return true
}

// +checklocks:q.mu
func (q *scheduler) remove(queue, at int) {
	q.queues[queue] = slices.Delete(q.queues[queue], at, at+1)
	if len(q.queues[queue]) == 0 {
		q.passed[queue] = 0
	}
	q.waiting--
	q.m.waiting.Add(-1)
}

// dispatch begins all tasks that may begin.
//
// +checklocks:q.mu
func (q *scheduler) dispatch() {
	for more := true; more && q.waiting > 0; {
		more = q.next()
	}
}

// next begins the next task, and says whether there was one that could.
//
// +checklocks:q.mu
func (q *scheduler) next() bool {
	for i := len(q.queues) - 1; i > 0; i-- {
		if q.passed[i] >= q.m.opt.Passed && q.first(i) {
			return true
		}
	}
	for i := range q.queues {
		if q.first(i) {
			return true
		}
	}
	return false
}

// first begins the first task of a queue that can, and says whether there was one.
//
// +checklocks:q.mu
func (q *scheduler) first(queue int) bool {
	for at, t := range q.queues[queue] {
		list := [2]Amount{{t.kind, 1}, {Tasks, 1}}
		refusing, _, err := t.s.tryReserve(t.generation, list[:], MaxPriority)
		if refusing != nil {
			continue
		}
		t.err = err
		q.remove(queue, at)
		if err == nil {
			q.passed[queue] = 0
			for lower := queue + 1; lower < len(q.queues); lower++ {
				if len(q.queues[lower]) > 0 {
					q.passed[lower]++
				}
			}
		}
		close(t.begun)
		return true
	}
	return false
}

// tasksFreed lets tasks begin after others have ended or limits have changed. No lock of
// a scope's is held.
func (m *Manager) tasksFreed() {
	if m.waiting.Load() == 0 {
		return
	}
	m.tasks.mu.Lock()
	m.tasks.dispatch()
	m.tasks.mu.Unlock()
}
