package scope

import (
	"context"
	"testing"
	"testing/synctest"
)

// proves G8: a low task whose scope is full when its turn is, while low tasks of other
// scopes begin, goes first when its scope is free, before the higher tasks of that.
func TestTasksSkippedDoNotStarve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const passed = 3
		m, err := New(Options{Passed: passed, Layers: map[string]Layer{"file": {"service": {Tasks: Fixed(1)}}}})
		must(t, err)
		a, b := open(t, m, "service:a"), open(t, m, "service:b")
		inA, inB := begin(t, a, TasksHigh), begin(t, b, TasksLow)
		lowA := queued(a, TasksLow)
		lowB := queued(b, TasksLow, TasksLow, TasksLow, TasksLow, TasksLow, TasksLow, TasksLow, TasksLow)
		at := 0 // when it began
		for i := 1; i <= cap(lowB) && at == 0; i++ {
			highA := queued(a, TasksHigh)
			must(t, inA.Done())
			select {
			case inA = <-highA:
			case low := <-lowA:
				at = i
				must(t, low.Done())
				inA = <-highA
			}
			must(t, inB.Done())
			inB = <-lowB
		}
		if at != passed+1 {
			t.Errorf("it began after %d higher ones of its own scope (0: never), want %d", at-1, passed)
		}
		for len(lowB) > 0 || m.waiting.Load() > 0 {
			must(t, inB.Done())
			inB = <-lowB
		}
		must(t, inA.Done())
		must(t, inB.Done())
		wantEmpty(t, m)
	})
}

// proves G8: many low tasks that waited for long do not go all together before the
// higher ones: one for each Passed of them.
func TestTasksPassedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const passed = 4
		m, err := New(Options{Passed: passed, Layers: map[string]Layer{"file": {"service": {Tasks: Fixed(1)}}}})
		must(t, err)
		s := open(t, m, "service:a")
		now := begin(t, s, TasksHigh)
		var kinds []Kind
		for range 5 {
			kinds = append(kinds, TasksLow)
		}
		for range 30 {
			kinds = append(kinds, TasksHigh)
		}
		began := queued(s, kinds...)
		for i := range kinds {
			must(t, now.Done())
			now = <-began
			low := i%(passed+1) == passed && i < 5*(passed+1)
			if (now.kind == TasksLow) != low {
				t.Errorf("number %d is of %v", i, now.kind)
			}
		}
		must(t, now.Done())
		wantEmpty(t, m)
	})
}

// proves G8: who can begin begins, however many of another scope wait; who cannot is
// refused then, and that is told as refusals are.
func TestTaskWaitsOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []*LimitError
		var m *Manager
		m, err := New(Options{
			Waiting: 2, Layers: map[string]Layer{"file": {"service:full": {Tasks: Fixed(1)}}},
			Setting: func(scope string, k Kind) string { m.List(); return scope + " " + k.String() }, // may call
			Refused: func(e *LimitError, _ uint64) { told = append(told, e) },
		})
		must(t, err)
		full, free := open(t, m, "service:full"), open(t, m, "service:free")
		now := begin(t, full, TasksLow)
		began := queued(full, TasksLow, TasksMedium)
		other := begin(t, free, TasksLow)
		_, err = full.BeginTask(context.Background(), TasksHigh)
		wantErr(t, err, ErrLimit)
		want := LimitError{
			Scope: "service:full", Kind: TasksHigh, Used: 2, Asked: 1, Limit: 2, Whole: 2,
			Origin: "of tasks that wait", Setting: "service:full tasks_high",
		}
		if len(told) != 1 || *told[0] != want || m.Refused(TasksHigh) != 1 {
			t.Errorf("told %+v, counted %d", told, m.Refused(TasksHigh))
		}
		must(t, other.Done())
		must(t, now.Done())
		must(t, (<-began).Done())
		must(t, (<-began).Done())
		wantEmpty(t, m)
	})
}
