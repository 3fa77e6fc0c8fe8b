package scope

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// begin begins a task that can begin at once.
func begin(t testing.TB, s *Scope, k Kind) *Task {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	task, err := s.BeginTask(ctx, k)
	must(t, err)
	return task
}

// queued begins tasks in goroutines, one after another, and returns the channel on which
// each says when it has begun.
func queued(s *Scope, list ...Kind) <-chan *Task {
	began := make(chan *Task, len(list))
	for _, k := range list {
		go func() {
			task, err := s.BeginTask(context.Background(), k)
			if err == nil {
				began <- task
			}
		}()
		synctest.Wait()
	}
	return began
}

// proves G8: higher goes first, and within a priority who came first.
func TestTasksByPriority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manager(t, Layer{"service": {Tasks: Fixed(1)}})
		s := open(t, m, "service:a")
		now := begin(t, s, TasksLow)
		began := queued(s, TasksLow, TasksMedium, TasksHigh, TasksMedium, TasksHigh)
		var order []Kind
		for range 5 {
			must(t, now.Done())
			now = <-began
			order = append(order, now.kind)
		}
		if want := []Kind{TasksHigh, TasksHigh, TasksMedium, TasksMedium, TasksLow}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
		must(t, now.Done())
		wantErr(t, now.Done(), ErrClosed)
		wantEmpty(t, m)
	})
}

// proves G8: a lower priority begins after Passed of higher ones at the latest, however
// many of these keep coming.
func TestTasksDoNotStarve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const passed = 5
		m, err := New(Options{Passed: passed, Layers: map[string]Layer{"file": {"service": {Tasks: Fixed(1)}}}})
		must(t, err)
		s := open(t, m, "service:a")
		now := begin(t, s, TasksHigh)
		began := make(chan *Task, 100)
		enter := func(k Kind) {
			go func() {
				task, err := s.BeginTask(context.Background(), k)
				if err != nil {
					panic(err)
				}
				began <- task
			}()
			synctest.Wait()
		}
		enter(TasksLow)
		enter(TasksMedium)
		at := map[Kind]int{}
		for i := range 60 {
			if i < 50 {
				enter(TasksHigh)
				enter(TasksHigh)
			}
			must(t, now.Done())
			now = <-began
			if at[now.kind] == 0 {
				at[now.kind] = i + 1
			}
		}
		if at[TasksLow] > passed+1 || at[TasksMedium] > passed+2 || at[TasksLow] == 0 || at[TasksMedium] == 0 {
			t.Errorf("low began as number %d, medium as number %d", at[TasksLow], at[TasksMedium])
		}
		for len(began) > 0 || m.waiting.Load() > 0 {
			must(t, now.Done())
			now = <-began
		}
		must(t, now.Done())
		wantEmpty(t, m)
	})
}

// proves G8: task limits bound each priority, and one that is full holds up no other.
func TestTaskLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manager(t, Layer{"service": {TasksHigh: Fixed(1), Tasks: Fixed(2)}})
		a, b := open(t, m, "service:a"), open(t, m, "service:b")
		first := begin(t, a, TasksHigh)
		began := queued(a, TasksHigh)
		low := begin(t, a, TasksLow)
		other := begin(t, b, TasksHigh)
		if len(began) != 0 {
			t.Error("a second high task has begun")
		}
		must(t, m.Set("service:a", Limits{TasksHigh: Fixed(2)}))
		synctest.Wait()
		if len(began) != 0 {
			t.Error("a third task has begun")
		}
		must(t, low.Done())
		second := <-began
		must(t, first.Done())
		must(t, second.Done())
		must(t, other.Done())
		wantEmpty(t, m)
	})
}

// A wait ends with its context and with its scope; too many do not wait at all.
func TestTaskWaitsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := New(Options{Waiting: 2, Layers: map[string]Layer{"file": {"service": {Tasks: Fixed(0)}}}})
		must(t, err)
		s := open(t, m, "service:a")
		ctx, cancel := context.WithCancelCause(t.Context())
		results := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := s.BeginTask(ctx, TasksLow)
				results <- err
			}()
		}
		synctest.Wait()
		_, err = s.BeginTask(ctx, TasksHigh)
		wantErr(t, err, ErrLimit)
		why := errors.New("enough")
		cancel(why)
		wantErr(t, <-results, why)
		wantErr(t, <-results, why)
		go func() {
			_, err := s.BeginTask(context.Background(), TasksLow)
			results <- err
		}()
		synctest.Wait()
		must(t, s.Close())
		must(t, m.SetLayer("file", nil))
		wantErr(t, <-results, ErrClosed)
		wantEmpty(t, m)
		if n := m.waiting.Load(); n != 0 {
			t.Errorf("%d wait", n)
		}
	})
}

// Tasks of many goroutines and scopes all begin, none above a limit, whoever is refused
// meanwhile.
func TestTasksConcurrent(t *testing.T) {
	m := manager(t, Layer{"system": {Tasks: Fixed(3)}, "service": {Tasks: Fixed(2)}})
	var wg sync.WaitGroup
	for i := range 64 {
		s := open(t, m, fmt.Sprint("service:", i%3))
		wg.Go(func() {
			for j := range 100 {
				if j%5 == 0 {
					if err := s.Reserve(TasksLow, 1); err == nil {
						must(t, s.Release(TasksLow, 1))
					}
					continue
				}
				task, err := s.BeginTask(context.Background(), TasksHigh+Kind((i+j)%3))
				if err != nil {
					t.Error(err)
					return
				}
				if n := m.System().Used(Tasks); n > 3 {
					t.Errorf("%d tasks", n)
				}
				if err := task.Done(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantEmpty(t, m)
}
