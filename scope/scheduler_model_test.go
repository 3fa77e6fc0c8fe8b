package scope

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// waiter is a task as the model of the scheduler has it.
type waiter struct {
	*Task
	scope  int // of line
	queue  int // 0 high, 1 medium, 2 low
	passed int // by higher ones since it came, or since one behind which it stood began
	fitted int // how often while it could have begun
	most   int // that fitted may be
}

// line is a scheduler with what waits and what runs in it. Scope 0 is System, 1 and 2
// stand below it, 3 and 4 below 1. Nothing here runs at the same time as anything else.
type line struct {
	m      *Manager
	scopes [5]*Scope
	limits [5][4]int64 // by queue, and of all
	used   [5][4]int64
	wait   []*waiter // in the order in which they came
	busy   []*waiter
}

var lineAbove = [5][]int{{0}, {1, 0}, {2, 0}, {3, 1, 0}, {4, 1, 0}}

const linePassed = 3

func (l *line) fits(w *waiter) bool {
	for _, a := range lineAbove[w.scope] {
		if l.used[a][w.queue] >= l.limits[a][w.queue] || l.used[a][3] >= l.limits[a][3] {
			return false
		}
	}
	return true
}

func (l *line) count(w *waiter, n int64) {
	for _, a := range lineAbove[w.scope] {
		l.used[a][w.queue] += n
		l.used[a][3] += n
	}
}

// settle begins what may begin, by the rules: who was passed too often, of the lowest
// priority first; then by priority; and of those who came first.
func (l *line) settle(t *rapid.T) {
	next := func() *waiter {
		for _, queue := range []int{2, 1} {
			for _, w := range l.wait {
				if w.queue == queue && w.passed >= linePassed && l.fits(w) {
					return w
				}
			}
		}
		for queue := range 3 {
			for _, w := range l.wait {
				if w.queue == queue && l.fits(w) {
					return w
				}
			}
		}
		return nil
	}
	for w := next(); w != nil; w = next() {
		behind := false
		for _, o := range l.wait {
			switch {
			case o == w:
				behind = true
			case o.queue > w.queue:
				o.passed++
				if l.fits(o) {
					o.fitted++
				}
			case o.queue == w.queue && behind:
				o.passed = 0
			}
			if o.fitted > o.most {
				t.Fatalf("a task of priority %d was passed %d times while it could begin: more than %d", o.queue, o.fitted, o.most)
			}
		}
		l.wait = slices.DeleteFunc(l.wait, func(o *waiter) bool { return o == w })
		l.busy = append(l.busy, w)
		l.count(w, 1)
	}
}

// check compares who has begun.
func (l *line) check(t *rapid.T) {
	begun := func(w *waiter) bool {
		select {
		case <-w.begun:
			return true
		default:
			return false
		}
	}
	for _, w := range l.wait {
		if begun(w) {
			t.Fatalf("a task of priority %d in %s has begun, and was not to", w.queue, w.s.name)
		}
	}
	for _, w := range l.busy {
		if !begun(w) {
			t.Fatalf("a task of priority %d in %s has not begun, and was to", w.queue, w.s.name)
		}
	}
	for i, s := range l.scopes {
		for k := range l.used[i] {
			if got := s.Used(TasksHigh + Kind(k)); got != l.used[i][k] {
				t.Fatalf("%s has %d of %v, want %d", s.name, got, TasksHigh+Kind(k), l.used[i][k])
			}
		}
	}
}

func (l *line) enter(t *rapid.T) {
	w := &waiter{scope: rapid.IntRange(0, 4).Draw(t, "scope"), queue: rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2}).Draw(t, "priority")}
	n, err := l.scopes[w.scope].BeginSpan()
	if err != nil {
		t.Fatal(err)
	}
	ahead := 0
	for _, o := range l.wait {
		if o.queue == w.queue {
			ahead++
		}
	}
	w.most = linePassed * (ahead + 1)
	w.Task = &Task{Span: n, kind: TasksHigh + Kind(w.queue), begun: make(chan struct{})}
	if err := l.m.tasks.enter(w.Task); err != nil {
		t.Fatal(err)
	}
	l.wait = append(l.wait, w)
	l.settle(t)
}

func (l *line) done(t *rapid.T) {
	if len(l.busy) == 0 {
		t.Skip("nothing runs")
	}
	i := rapid.IntRange(0, len(l.busy)-1).Draw(t, "which")
	w := l.busy[i]
	if err := w.Done(); err != nil {
		t.Fatal(err)
	}
	l.busy = slices.Delete(l.busy, i, i+1)
	l.count(w, -1)
	l.settle(t)
}

func (l *line) leave(t *rapid.T) {
	if len(l.wait) == 0 {
		t.Skip("nobody waits")
	}
	i := rapid.IntRange(0, len(l.wait)-1).Draw(t, "which")
	w := l.wait[i]
	if !l.m.tasks.leave(w.Task) {
		t.Fatal("it does not wait")
	}
	if err := w.Done(); err != nil {
		t.Fatal(err)
	}
	l.wait = slices.Delete(l.wait, i, i+1)
	l.settle(t)
}

func (l *line) limit(t *rapid.T) {
	i, k := rapid.IntRange(0, 4).Draw(t, "scope"), rapid.IntRange(0, 3).Draw(t, "kind")
	n := rapid.Int64Range(0, 4).Draw(t, "limit")
	l.limits[i][k] = n
	if err := l.m.Set(l.scopes[i].name, Limits{TasksHigh + Kind(k): Fixed(n)}); err != nil {
		t.Fatal(err)
	}
	l.settle(t)
}

// proves G8: in random trees of limits, with tasks that come, end and give up, exactly
// those begin that the rules let begin; and a lower task is passed by at most Passed
// higher ones while it could begin, for itself and for each of its priority before it.
func TestSchedulerModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, err := New(Options{Passed: linePassed, Machine: Machine{1, 1}})
		if err != nil {
			t.Fatal(err)
		}
		l := &line{m: m}
		l.scopes[0] = m.System()
		for i := range l.scopes {
			if i > 0 {
				if l.scopes[i], err = m.Open(fmt.Sprint("s:", i), l.scopes[lineAbove[i][1]]); err != nil {
					t.Fatal(err)
				}
			}
			for k := range l.limits[i] {
				l.limits[i][k] = rapid.Int64Range(1, 3).Draw(t, "limit")
				if err := m.Set(l.scopes[i].name, Limits{TasksHigh + Kind(k): Fixed(l.limits[i][k])}); err != nil {
					t.Fatal(err)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": l.check, "enter": l.enter, "enter again": l.enter, "done": l.done, "done again": l.done, "leave": l.leave, "limit": l.limit,
		})
	})
}
