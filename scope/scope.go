package scope

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Scope counts what is used by what it stands for, and below it. Safe for concurrent
// use. [Manager] makes those with names; those without are [Span]s.
type Scope struct {
	m     *Manager
	name  string
	owner *Scope    // of a span; else nil
	book  *limits   // nil: no limits of its own
	order uint64    // of opening; 0 in spans
	conn  *deadline // of a connection

	used [NumKinds]atomic.Int64 // by itself and below it

	closed atomic.Bool // changes under mu only

	mu sync.Mutex
	// +checklocks:mu
	own [NumKinds]int64 // by itself
	// +checklocks:mu
	up []*Scope // all above it, each once, those below before those above. Never changed in place
	// +checklocks:mu
	path []*Scope // itself and up; made when it is needed
	// +checklocks:mu
	generation uint64 // of a span: how often it was begun
	// +checklocks:mu
	spans *Scope // the last of them; linked by prev
	// +checklocks:mu
	idle *Scope // spans that were unlinked, to be begun again; linked by prev
	// +checklocks:mu
	numIdle int
	// The links are the owner's, under its mu.
	prev, next *Scope

	// Of scopes with names; the manager's, under its mu.
	opens    int
	parents  []*Scope
	children map[*Scope]struct{}

	// The scheduler's, under its mu: the last round in which no task of high, medium or
	// low priority could begin here. Those behind it need not try.
	full [3]uint64
	// Likewise: the tasks that have begun in it while others waited, and the one for
	// which it keeps places; see keep.
	began  uint64
	keeper *Task

	// kept are the places that are kept, by kind from TasksHigh to Tasks. They change
	// under the scheduler's mu only.
	kept [Tasks - TasksHigh + 1]atomic.Int64
}

// limits are what a scope with a name may use, and what it refused.
type limits struct {
	n       [NumKinds]atomic.Int64
	refused [NumKinds]atomic.Uint64
	logged  [NumKinds]atomic.Int64 // when, in nanoseconds since the manager was made; 0: never
	what    [NumKinds]atomic.Pointer[limit]
}

// Name returns the scope's name; a span's is its owner's.
func (s *Scope) Name() string { return s.name }

// Used returns what the scope and all below it use of a kind now.
func (s *Scope) Used(k Kind) int64 {
	if int(k) >= NumKinds {
		return 0
	}
	return s.used[k].Load()
}

// Limit returns how much the scope may use of a kind; math.MaxInt64 is no limit.
func (s *Scope) Limit(k Kind) int64 {
	if s.book == nil || int(k) >= NumKinds {
		return unlimited
	}
	return s.book.n[k].Load()
}

// chain returns the scope and all above it.
//
// +checklocks:s.mu
func (s *Scope) chain() []*Scope {
	if s.path == nil {
		s.path = append([]*Scope{s}, s.up...)
	}
	return s.path
}

// over says whether a span of a generation, or a scope with a name, is closed.
//
// +checklocks:s.mu
func (s *Scope) over(generation uint64) bool {
	return s.closed.Load() || s.generation != generation
}

// usable says whether something new may be begun or reserved in a span of a generation,
// or in a scope with a name.
//
// +checklocks:s.mu
func (s *Scope) usable(generation uint64) error {
	if s.over(generation) {
		return errClosed(s)
	}
	for _, a := range s.up {
		if a.closed.Load() {
			return errClosed(a)
		}
	}
	return nil
}

// errClosed says which scope is closed.
func errClosed(s *Scope) error {
	if s.owner != nil {
		return fmt.Errorf("%w: a span of %s", ErrClosed, s.name)
	}
	return fmt.Errorf("%w: %s", ErrClosed, s.name)
}

// end closes the scope and gives back what is reserved in it, and says whether tasks
// were.
//
// +checklocks:s.mu
func (s *Scope) end() (tasks bool) {
	s.closed.Store(true)
	tasks = s.own[Tasks] > 0
	for k := range s.own {
		n := s.own[k]
		if n == 0 {
			continue
		}
		s.own[k] = 0
		s.sub(Kind(k), n)
		for _, a := range s.up {
			a.sub(Kind(k), n)
		}
	}
	return tasks
}
