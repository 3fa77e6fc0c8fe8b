package scope

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// proves G8: who waits begins with whatever makes room for it, and at once.
func TestTasksBeginWhenThereIsRoom(t *testing.T) {
	for name, free := range map[string]func(*Manager, *Scope, *Scope) error{
		"release":     func(_ *Manager, c, _ *Scope) error { return c.Release(TasksMedium, 1) },
		"release all": func(_ *Manager, c, _ *Scope) error { return c.ReleaseAll(Amount{TasksMedium, 1}) },
		"close":       func(_ *Manager, c, _ *Scope) error { return c.Close() },
		"move":        func(m *Manager, c, _ *Scope) error { return c.Move(m.System()) },
		"move away":   func(m *Manager, _, a *Scope) error { return a.Move(m.System()) },
		"set":         func(m *Manager, _, _ *Scope) error { return m.Set("service:a", Limits{Tasks: Unlimited()}) },
		"layer":       func(m *Manager, _, _ *Scope) error { return m.SetLayer("file", nil) },
	} {
		synctest.Test(t, func(t *testing.T) {
			m := manager(t, Layer{"service:a": {Tasks: Fixed(1)}, "service:top": {Tasks: Fixed(1)}})
			top := open(t, m, "service:top")
			a := open(t, m, "service:a")
			if name == "move away" {
				must(t, a.Move(top))
				must(t, m.Set("service:a", Limits{Tasks: Fixed(2)}))
			}
			c := open(t, m, "client:c", a)
			must(t, c.Reserve(TasksMedium, 1))
			began := queued(a, TasksLow)
			if len(began) != 0 {
				t.Fatalf("%s: begun above the limit", name)
			}
			if err := free(m, c, a); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			synctest.Wait()
			if len(began) != 1 {
				t.Errorf("%s: it waits, and there is room", name)
				must(t, a.Close()) // it ends so
				return
			}
			must(t, (<-began).Done())
		})
	}
}

// proves G8: who gives up counts no longer among those that wait.
func TestTaskGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manager(t, Layer{"service": {Tasks: Block()}})
		s := open(t, m, "service:a")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 3 {
			_, err := s.BeginTask(ctx, TasksLow)
			wantErr(t, err, context.Canceled)
		}
		if n := m.waiting.Load(); n != 0 {
			t.Errorf("%d wait", n)
		}
	})
}

// proves G2: a limit of one lets in one at a time, whoever asks at the same moment.
func TestRaceLimit(t *testing.T) {
	m := manager(t, Layer{"system": {Connections: Fixed(1)}})
	var in, entered atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		n := span(t, m.System())
		wg.Go(func() {
			for range 20_000 {
				if err := n.Reserve(Inbound, 1); errors.Is(err, ErrLimit) {
					continue
				}
				if in.Add(1) > 1 || m.System().Used(Connections) > 1 {
					t.Error("two are in")
				}
				entered.Add(1)
				in.Add(-1)
				if err := n.Release(Inbound, 1); err != nil {
					t.Error(err)
				}
			}
			if err := n.Done(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if entered.Load() == 0 {
		t.Error("nobody came in")
	}
	wantEmpty(t, m)
}

// proves G5: what begins in a scope after it has moved counts where it stands now.
func TestSpanAfterMove(t *testing.T) {
	m := manager(t, nil)
	a, b := open(t, m, "service:a"), open(t, m, "service:b")
	c := open(t, m, "client:c", a)
	before := span(t, c)
	must(t, c.Move(b))
	for _, n := range []Span{before, span(t, c), span(t, before)} {
		must(t, n.ReserveMemory(5, 0))
	}
	must(t, c.Charge(Memory, 1))
	wantUsed(t, Memory, map[user]int64{m.System(): 16, a: 0, b: 16, c: 16})
}

// However many spans there were at once, few are kept to be begun again.
func TestSpansKept(t *testing.T) {
	m := manager(t, nil)
	a := open(t, m, "service:a")
	var list []Span
	for range 3 * maxIdle {
		list = append(list, span(t, a))
	}
	for _, n := range list {
		must(t, n.Done())
	}
	kept := 0
	for n := a.idle; n != nil; n = n.prev {
		kept++
	}
	if kept != maxIdle || a.numIdle != maxIdle {
		t.Errorf("%d (%d) are kept, want %d", kept, a.numIdle, maxIdle)
	}
}
