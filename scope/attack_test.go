package scope

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// proves G4: of many who end a span at once one does, while others begin and end spans
// in its place, and its scope is closed and opened again.
func TestRaceDone(t *testing.T) {
	m := manager(t, Layer{"service": {Memory: Fixed(1000)}})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 100 {
				a, err := m.Open(fmt.Sprint("service:", i%3))
				if err != nil {
					t.Error(err)
					return
				}
				outer, err := a.BeginSpan()
				if err != nil {
					t.Error(err)
					return
				}
				inner, err := outer.BeginSpan()
				if err != nil || inner.ReserveMemory(7, MaxPriority) != nil {
					t.Error("refused")
					return
				}
				var ended atomic.Int32
				var both sync.WaitGroup
				for _, n := range []Span{outer, inner, inner, outer} {
					both.Go(func() {
						switch err := n.Done(); {
						case err == nil:
							ended.Add(1)
						case !errors.Is(err, ErrClosed):
							t.Error(err)
						}
					})
				}
				if err := a.Close(); err != nil {
					t.Error(err)
				}
				both.Wait()
				if ended.Load() != 2 {
					t.Errorf("%d ended two spans", ended.Load())
				}
			}
		})
	}
	wg.Wait()
	wantEmpty(t, m)
	if n := len(m.List()) / NumKinds; n != 2 {
		t.Errorf("%d scopes are left", n-2)
	}
}

// proves G5: what moves counts on its way, above where it comes from and where it goes
// to, never less than once, and in what stands above both exactly once: System, which
// has just room for it, never refuses it, nor sees it gone.
func TestRaceMove(t *testing.T) {
	m := manager(t, Layer{"system": {Memory: Fixed(100), Tasks: Fixed(1)}})
	a, b := open(t, m, "service:a"), open(t, m, "service:b")
	c := open(t, m, "client:c", a)
	must(t, c.ReserveMemory(60, MaxPriority))
	n := span(t, span(t, c))
	must(t, n.ReserveAll(MaxPriority, Amount{Memory, 40}, Amount{TasksHigh, 1}))
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			if u := m.System().Used(Memory); u != 100 {
				t.Errorf("System uses %d", u)
				return
			}
			if err := n.ReserveMemory(1, MaxPriority); !errors.Is(err, ErrLimit) {
				t.Errorf("reserved above the limit: %v", err)
				return
			}
		}
	})
	for i := range 500 {
		to := [][]*Scope{{a}, {b}, {a, b}, {m.System()}, {b, m.System()}}[i%5]
		must(t, c.Move(to...))
	}
	stop.Store(true)
	wg.Wait()
	must(t, c.Move(a))
	wantUsed(t, Memory, map[user]int64{m.System(): 100, a: 100, b: 0, c: 100, n: 40})
	must(t, n.Done())
	must(t, c.Close())
	for k := range Kind(NumKinds) {
		wantUsed(t, k, map[user]int64{m.System(): 0, a: 0, b: 0})
	}
}

// proves G8: tasks that give up, whose scopes are closed and opened, moved and limited
// while they wait, all end, and leave nothing.
func TestRaceTasks(t *testing.T) {
	m, err := New(Options{Waiting: 40, Passed: 2, Layers: map[string]Layer{"file": {"system": {Tasks: Fixed(4)}}}})
	must(t, err)
	top := []*Scope{open(t, m, "service:a"), open(t, m, "service:b")}
	seed := rand.Uint64()
	t.Log("seed", seed)
	var begun atomic.Int64
	work := func(rnd *rand.Rand) {
		for range 60 {
			s, err := m.Open(fmt.Sprint("client:", rnd.IntN(4)), top[rnd.IntN(2)])
			if err != nil {
				t.Error(err)
				return
			}
			ctx, cancel := context.WithCancel(t.Context())
			switch rnd.IntN(6) {
			case 0:
				go cancel()
			case 1:
				_ = s.Move(top[rnd.IntN(2)])
			case 2:
				must(t, m.Set("client", Limits{TasksHigh + Kind(rnd.IntN(4)): Fixed(rnd.Int64N(3) + 1)}))
			}
			task, err := s.BeginTask(ctx, TasksHigh+Kind(rnd.IntN(3)))
			switch {
			case err == nil:
				begun.Add(1)
				if n := m.System().Used(Tasks); n > 4 {
					t.Errorf("%d tasks", n)
				}
				err = task.Done()
			case errors.Is(err, ErrLimit), errors.Is(err, context.Canceled):
				err = nil
			}
			cancel()
			if err := errors.Join(err, s.Close()); err != nil {
				t.Error(err)
			}
		}
	}
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() { work(rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	wg.Wait()
	wantEmpty(t, m)
	if n := m.waiting.Load(); n != 0 || begun.Load() == 0 {
		t.Errorf("%d wait, %d have begun", n, begun.Load())
	}
	if n := len(m.List()) / NumKinds; n != 2+len(top) {
		t.Errorf("%d scopes are left", n)
	}
}
