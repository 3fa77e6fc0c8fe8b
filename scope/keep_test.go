package scope

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// enter gives a task to the scheduler, which lets it begin now, later or never.
func enter(t rapid.TB, s *Scope, k Kind) *Task {
	t.Helper()
	n, err := s.BeginSpan()
	if err != nil {
		t.Fatal(err)
	}
	w := &Task{Span: n, kind: k, begun: make(chan struct{})}
	if err := s.m.tasks.enter(w); err != nil {
		t.Fatal(err)
	}
	return w
}

func hasBegun(w *Task) bool {
	select {
	case <-w.begun:
		return true
	default:
		return false
	}
}

// stream is tasks of a scope that come so that one always waits.
type stream struct {
	t    testing.TB
	s    *Scope
	kind Kind
	list []*Task // the first ones run
	n    int     // that have ended
}

// next ends the one that runs, if one does.
func (r *stream) next() {
	for len(r.list) < 3 {
		r.list = append(r.list, enter(r.t, r.s, r.kind))
	}
	if !hasBegun(r.list[0]) {
		return
	}
	if err := r.list[0].Done(); err != nil {
		r.t.Fatal(err)
	}
	r.list = r.list[1:]
	r.n++
}

func (r *stream) end() {
	for _, w := range r.list {
		if hasBegun(w) {
			continue
		}
		if !r.s.m.tasks.leave(w) {
			r.t.Fatal("it does not wait")
		}
	}
	for _, w := range r.list {
		_ = w.Done() // closed if it has ended
	}
	r.list = nil
}

const keptPassed = 4

func keptManager(t *testing.T) (m *Manager, a, b, c *Scope) {
	t.Helper()
	m, err := New(Options{Passed: keptPassed, Layers: map[string]Layer{"file": {"service": {Tasks: Fixed(1)}}}})
	must(t, err)
	a, b = open(t, m, "service:a"), open(t, m, "service:b")
	return m, a, b, open(t, m, "client:c", a, b)
}

// proves G8: a task below two scopes, of which now one and now the other is full, begins
// after Passed others of each, and those that run, at the latest; of whatever priority.
func TestTaskBelowTwoDoesNotStarve(t *testing.T) {
	for _, kind := range []Kind{TasksHigh, TasksMedium, TasksLow} {
		m, a, b, c := keptManager(t)
		x, y := &stream{t: t, s: a, kind: TasksHigh}, &stream{t: t, s: b, kind: TasksHigh}
		x.next()
		y.next()
		w := enter(t, c, kind)
		for i := 0; !hasBegun(w); i++ {
			if i == 10*keptPassed {
				t.Fatalf("%v: after %d and %d others it has not begun", kind, x.n, y.n)
			}
			x.next()
			y.next()
		}
		if x.n > keptPassed+2 || y.n > keptPassed+2 {
			t.Errorf("%v: it began after %d and %d others", kind, x.n, y.n)
		}
		must(t, w.Done())
		for range 3 { // it is over: nothing is kept
			x.next()
			y.next()
		}
		if x.n < 3 || y.n < 3 {
			t.Errorf("%v: %d and %d have ended", kind, x.n, y.n)
		}
		x.end()
		y.end()
		wantEmpty(t, m)
		wantNothingKept(t, m)
	}
}

func wantNothingKept(t rapid.TB, m *Manager) {
	t.Helper()
	for _, s := range m.names { // order does not matter
		for k := range s.kept {
			if n := s.kept[k].Load(); n != 0 || s.keeper != nil {
				t.Fatalf("%s keeps %d of %v", s.name, n, TasksHigh+Kind(k))
			}
		}
	}
	if len(m.tasks.keepers) != 0 {
		t.Fatalf("%d have places kept", len(m.tasks.keepers))
	}
}

// proves G8: nor does what is taken by Reserve let it starve.
func TestTaskBelowTwoBesideReserve(t *testing.T) {
	m, a, b, c := keptManager(t)
	must(t, a.Reserve(TasksHigh, 1))
	must(t, b.Reserve(TasksHigh, 1))
	w := enter(t, c, TasksLow)
	refused := 0
	for i := 0; !hasBegun(w); i++ {
		if i == 10*keptPassed {
			t.Fatal("it has not begun")
		}
		for _, s := range []*Scope{a, b} {
			if s.Used(TasksHigh) > 0 {
				must(t, s.Release(TasksHigh, 1))
			}
			if err := s.Reserve(TasksHigh, 1); err != nil {
				wantErr(t, err, ErrLimit)
				refused++
			}
		}
	}
	if refused == 0 {
		t.Error("it has begun, and nothing was refused for it")
	}
	must(t, w.Done())
	must(t, a.Reserve(TasksHigh, 1))
	must(t, a.Release(TasksHigh, 1))
	wantEmpty(t, m)
	wantNothingKept(t, m)
}

// proves G8: where what runs in one scope does not end, the other is not kept for those
// that wait for it.
func TestNothingIsKeptForWhatHangs(t *testing.T) {
	m, a, b, c := keptManager(t)
	hangs := enter(t, b, TasksHigh)
	w := enter(t, c, TasksHigh)
	x := &stream{t: t, s: a, kind: TasksLow}
	for range 10 * keptPassed {
		x.next()
	}
	if x.n < 9*keptPassed {
		t.Errorf("%d have ended", x.n)
	}
	x.end()
	must(t, hangs.Done())
	if !hasBegun(w) {
		t.Error("it has not begun")
	}
	must(t, w.Done())
	wantEmpty(t, m)
	wantNothingKept(t, m)
}

// proves G8: in random graphs of scopes with limits, full of tasks of which always more
// come, somebody can always go on, whatever waits begins after so many others, no limit is
// passed, and the books are right.
func TestNoTaskStarves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, err := New(Options{Passed: 2, Machine: Machine{1, 1}})
		if err != nil {
			t.Fatal(err)
		}
		all := []*Scope{m.System()}
		for i := range rapid.IntRange(2, 6).Draw(t, "scopes") {
			var parents []*Scope
			for _, p := range rapid.SliceOfNDistinct(rapid.IntRange(0, len(all)-1), 1, min(3, len(all)), rapid.ID).Draw(t, "above") {
				parents = append(parents, all[p])
			}
			s, err := m.Open(fmt.Sprint("s:", i), parents...)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		for _, s := range all {
			limits := Limits{Tasks: Fixed(rapid.Int64Range(1, 3).Draw(t, "limit"))}
			if rapid.Bool().Draw(t, "and of high") {
				limits[TasksHigh] = Fixed(rapid.Int64Range(1, 2).Draw(t, "high"))
			}
			if err := m.Set(s.name, limits); err != nil {
				t.Fatal(err)
			}
		}
		var busy, wait []*Task
		came := map[*Task]int{} // how many had ended
		ended := 0
		add := func() {
			s := rapid.SampledFrom(all).Draw(t, "scope")
			w := enter(t, s, rapid.SampledFrom([]Kind{TasksHigh, TasksHigh, TasksMedium, TasksLow}).Draw(t, "priority"))
			came[w] = ended
			wait = append(wait, w)
		}
		settle := func() {
			for _, w := range wait {
				if hasBegun(w) {
					busy = append(busy, w)
				}
			}
			wait = slices.DeleteFunc(wait, hasBegun)
			for _, s := range all {
				if s.Used(Tasks) > s.Limit(Tasks) || s.Used(TasksHigh) > s.Limit(TasksHigh) {
					t.Fatalf("%s is above its limit", s.name)
				}
			}
		}
		const most, flood = 6, 100 // that wait at one time; that end
		const bound = 84           // twice as many as ever was seen
		for ended < flood {
			for len(wait) < most {
				add()
			}
			settle()
			if len(busy) == 0 {
				t.Fatalf("%d wait, and none runs", len(wait))
			}
			if err := busy[0].Done(); err != nil { // each takes as long
				t.Fatal(err)
			}
			busy = busy[1:]
			ended++
			settle()
			for _, w := range wait {
				if ended-came[w] > bound {
					t.Fatalf("a %v task of %s waits since %d others have ended", w.kind, w.s.name, ended-came[w])
				}
			}
		}
		for len(wait)+len(busy) > 0 {
			if err := busy[0].Done(); err != nil {
				t.Fatal(err)
			}
			busy = busy[1:]
			settle()
		}
		for _, s := range all {
			if n := s.Used(Tasks); n != 0 {
				t.Fatalf("%s has %d tasks", s.name, n)
			}
		}
		wantNothingKept(t, m)
	})
}
