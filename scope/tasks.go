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
	higher [3]uint64 // how many of higher priorities than the queue's have begun
	// +checklocks:mu
	waiting int
	// +checklocks:mu
	round uint64 // of dispatch; see Scope.full
	// +checklocks:mu
	keepers []*Task // for which places are kept, in the order in which that began
	// +checklocks:mu
	again bool // places are kept no more
}

// Task is a unit of work that has begun. Its Done ends it.
type Task struct {
	Span // for what the task uses

	kind  Kind
	since uint64        // scheduler.higher when it came, or when one behind which it stood began
	begun chan struct{} // closed when it has begun, or never can
	err   error         // why not; read when begun is closed

	// The scheduler's, under its mu; see keep.
	seen  []seen
	stuck *Scope   // whose keeper it is, or nil
	kept  []*Scope // that keep a place for it
}

// BeginTask waits until a task of the priority (TasksHigh, TasksMedium, TasksLow) may
// begin in the scope, or until the context ends, and returns the context's cause then.
// Higher priorities go first, but when Options.Passed of them have begun while a lower
// one waited, that goes before them where its scope lets it. One below several scopes of
// which now this and now that is full has places kept for it, when each that was full has let
// Options.Passed others begin meanwhile. What is taken by Reserve does not queue, but
// what is given back is offered to those that wait before. BeginTask returns a *LimitError at once if
// it cannot begin and Options.Waiting others wait, and ErrClosed if the scope is closed,
// also while it waits. Done of what it returns ends the task.
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

// enter queues a task, and begins what may begin. If the task does not and too many
// wait, it does not wait.
func (q *scheduler) enter(t *Task) error {
	i, most := t.kind-TasksHigh, q.m.opt.Waiting
	q.mu.Lock()
	t.since = q.higher[i]
	q.queues[i] = append(q.queues[i], t)
	q.waiting++
	q.m.waiting.Add(1)
	q.dispatch()
	last := len(q.queues[i]) - 1
	full := q.waiting > most && last >= 0 && q.queues[i][last] == t
	if full {
		q.remove(int(i), last)
	}
	q.mu.Unlock()
	if !full {
		return nil
	}
	r := refusal{at: t.s.owner, what: Amount{t.kind, 1}, used: int64(most), limit: int64(most), whole: int64(most), origin: "of tasks that wait"}
	return r.tell()
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
	if q.again {
		q.dispatch()
	}
	return true
}

// +checklocks:q.mu
func (q *scheduler) remove(queue, at int) {
	q.letGo(q.queues[queue][at])
	q.queues[queue] = slices.Delete(q.queues[queue], at, at+1)
	q.waiting--
	q.m.waiting.Add(-1)
}

// dispatch begins all tasks that may begin.
//
// +checklocks:q.mu
func (q *scheduler) dispatch() {
	for rounds := q.waiting + 1; rounds > 0; rounds-- { // more would change nothing
		q.round++
		q.again = false
		for more := true; more && q.waiting > 0; {
			more = q.firstKeeper() || q.next()
		}
		if !q.again {
			return
		}
	}
}

// next begins the next task, and says whether there was one that could.
//
// +checklocks:q.mu
func (q *scheduler) next() bool {
	for i := len(q.queues) - 1; i > 0; i-- {
		if q.first(i, true) {
			return true
		}
	}
	for i := range q.queues {
		if q.first(i, false) {
			return true
		}
	}
	return false
}

// first begins the first task of a queue that can, of all or only of those that were
// passed too often, and says whether there was one. Who was passed more often stands
// before who was less.
//
// +checklocks:q.mu
func (q *scheduler) first(queue int, passed bool) bool {
	for at, t := range q.queues[queue] {
		if passed && q.higher[queue]-t.since < uint64(q.m.opt.Passed) {
			return false
		}
		if t.stuck != nil || t.s.owner.full[queue] == q.round {
			continue
		}
		full, err := t.take()
		if full != nil {
			t.s.owner.full[queue] = q.round
			q.refused(t, full)
			continue
		}
		q.begin(t, queue, at, err)
		return true
	}
	return false
}

// take takes a place for a task, or returns the scope that is full. The error is that it
// never can begin.
func (t *Task) take() (full *Scope, err error) {
	list := [2]Amount{{t.kind, 1}, {Tasks, 1}}
	var r refusal
	err = t.s.tryReserve(t.generation, list[:], MaxPriority, &r)
	return r.at, err
}

// begin begins a task that has its place, or tells it that it never can.
//
// +checklocks:q.mu
func (q *scheduler) begin(t *Task, queue, at int, err error) {
	t.err = err
	q.remove(queue, at)
	if err == nil {
		q.count(queue, at)
		began(t.s, 1)
	}
	close(t.begun)
}

// count tells those that wait that a task has begun that stood in a queue: those behind
// it wait anew for their turn between higher ones, and those before it, whose scopes are
// full, do not.
//
// +checklocks:q.mu
func (q *scheduler) count(queue, at int) {
	for _, t := range q.queues[queue][at:] {
		t.since = q.higher[queue]
	}
	for lower := queue + 1; lower < len(q.higher); lower++ {
		q.higher[lower]++
	}
}

// Waiting says whether tasks wait to begin.
func (m *Manager) Waiting() bool { return m.waiting.Load() > 0 }

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

// reserve is what Reserve does while others wait.
func (q *scheduler) reserve(s *Scope, generation uint64, list []Amount, priority uint8, r *refusal) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := s.tryReserve(generation, list, priority, r); err != nil || r.at != nil {
		return err
	}
	for _, a := range list {
		if a.Kind == Tasks {
			began(s, a.N)
		}
	}
	return nil
}

// release is what Release does while others wait: what it gives back is offered to them
// before anybody else can take it.
func (q *scheduler) release(s *Scope, generation uint64, list []Amount) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, err := s.tryRelease(generation, list); err != nil {
		return err
	}
	q.dispatch()
	return nil
}

// done is what Done does of a span with tasks while others wait.
func (q *scheduler) done(n Span) error {
	q.mu.Lock()
	leaf, _, err := n.end()
	if err == nil {
		q.dispatch()
	}
	q.mu.Unlock()
	if leaf {
		n.s.unlink()
	}
	return err
}
