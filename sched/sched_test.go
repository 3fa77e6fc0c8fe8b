package sched

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// trace runs a little program of tasks that contend for a mutex and returns
// the order of what they did.
func trace(seed uint64) string {
	s := New(seed)
	var b strings.Builder
	var mu Mutex
	mu.Init(s, RankLog)
	var cond Cond
	cond.Init(s, &mu)
	ready := 0
	err := s.Run(func() {
		for i := range 5 {
			s.Go(fmt.Sprintf("t%d", i), func() {
				for range 3 {
					mu.Lock()
					fmt.Fprintf(&b, "%d", i)
					mu.Unlock()
					if err := s.Sleep(context.Background(), time.Duration(s.Rand().IntN(100))); err != nil {
						panic(err)
					}
				}
				mu.Lock()
				ready++
				cond.Broadcast()
				mu.Unlock()
			})
		}
		mu.Lock()
		for ready < 5 {
			if err := cond.Wait(context.Background()); err != nil {
				panic(err)
			}
		}
		mu.Unlock()
	})
	if err != nil {
		panic(err)
	}
	return b.String()
}

// A seed decides the run, and different seeds give different runs.
func TestSeedDecidesOrder(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(50) {
		a, b := trace(seed), trace(seed)
		if a != b {
			t.Fatalf("seed %d: two runs differ: %s, %s", seed, a, b)
		}
		seen[a] = true
	}
	if len(seen) < 40 {
		t.Fatalf("50 seeds gave only %d orders", len(seen))
	}
}

func TestCutUnwindsAndDefersDoNothing(t *testing.T) {
	s := New(1)
	var mu Mutex
	mu.Init(s, RankLog)
	var undone, after int
	err := s.Run(func() {
		for range 3 {
			s.Go("holder", func() {
				defer func() { undone++ }()
				mu.Lock()
				defer mu.Unlock()
				if s.Sleep(context.Background(), time.Hour) == nil {
					after++
				}
			})
		}
		if err := s.Sleep(context.Background(), time.Minute); err != nil {
			t.Error(err)
		}
		s.Cut()
	})
	if !errors.Is(err, ErrCut) || undone != 3 || after != 0 {
		t.Fatalf("Run = %v, %d tasks unwound, %d went on", err, undone, after)
	}
	// The mutex died with its world; the simulation itself runs again.
	if err := s.Run(func() {}); err != nil {
		t.Fatal(err)
	}
}

// The task that makes the cut is unwound like the others: its defers, which may
// stand between an Unlock and a Lock, do nothing.
func TestCutterIsUnwoundToo(t *testing.T) {
	s := New(1)
	var mu Mutex
	mu.Init(s, RankLog)
	var c Completion
	c.Init(s)
	err := s.Run(func() {
		mu.Lock()
		defer mu.Unlock()
		defer s.Go("never", func() { t.Error("a task started after the cut") })
		defer func() {
			if !s.Cutting() || c.Wait(context.Background()) == nil {
				t.Error("a defer after the cut waits")
			}
		}()
		mu.Unlock()
		s.Cut()
	})
	if !errors.Is(err, ErrCut) || !s.Cutting() {
		t.Fatalf("Run = %v", err)
	}
	if err := s.Run(func() { s.Go("other", func() {}) }); err != nil || s.Cutting() {
		t.Fatalf("Run after a cut = %v", err)
	}
}

func TestDeadlockIsReported(t *testing.T) {
	s := New(1)
	var c Completion
	c.Init(s)
	err := s.Run(func() { _ = c.Wait(context.Background()) })
	if !errors.Is(err, ErrDeadlock) || !strings.Contains(err.Error(), "main waits for completion") {
		t.Fatalf("Run = %v", err)
	}
}

func TestRankOrderIsAsserted(t *testing.T) {
	s := New(1)
	var outer, inner Mutex
	outer.Init(s, RankMeta)
	inner.Init(s, RankSpace)
	defer func() {
		if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "rank meta taken while holding rank space") {
			t.Fatalf("recovered %v", r)
		}
	}()
	_ = s.Run(func() {
		inner.Lock()
		outer.Lock()
	})
}

// worlds runs a test in the simulation and in the real world.
func worlds(t *testing.T, f func(t *testing.T, s *Sched)) {
	t.Helper()
	t.Run("real", func(t *testing.T) { f(t, nil) })
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed%d", seed), func(t *testing.T) {
			s := New(seed)
			if err := s.Run(func() { f(t, s) }); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestCompletion(t *testing.T) {
	worlds(t, func(t *testing.T, s *Sched) {
		t.Helper()
		var c Completion
		c.Init(s)
		for range 10 {
			s.Go("done", c.Done)
			if err := c.Wait(context.Background()); err != nil {
				t.Error(err)
			}
			if !c.IsDone() {
				t.Error("not done after Wait")
			}
			c.Reset()
		}
		ctx, cancel := s.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		if err := c.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait = %v", err)
		}
		c.Done()
		if err := c.Wait(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func TestCondContextAndSignal(t *testing.T) {
	worlds(t, func(t *testing.T, s *Sched) {
		t.Helper()
		var mu Mutex
		mu.Init(s, RankLog)
		var cond Cond
		cond.Init(s, &mu)
		ctx, cancel := s.WithCancel(context.Background())
		var done Completion
		done.Init(s)
		s.Go("waiter", func() {
			mu.Lock()
			err := cond.Wait(ctx)
			mu.Unlock()
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Wait = %v", err)
			}
			done.Done()
		})
		cancel()
		if err := done.Wait(context.Background()); err != nil {
			t.Error(err)
		}
		// A signal is never lost to a waiter whose context has ended.
		done.Reset()
		flag := false
		s.Go("waiter", func() {
			mu.Lock()
			for !flag {
				if err := cond.Wait(context.Background()); err != nil {
					t.Error(err)
				}
			}
			mu.Unlock()
			done.Done()
		})
		mu.Lock()
		flag = true
		cond.Signal()
		mu.Unlock()
		if err := done.Wait(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkMutex(b *testing.B) {
	b.Run("sched", func(b *testing.B) {
		var mu Mutex
		for b.Loop() {
			mu.Lock()
			mu.Unlock() //nolint:staticcheck // the empty critical section is what is measured
		}
	})
}

// A poke ends one Wait, is kept for the next, and never eats a Done.
func TestCompletionPoke(t *testing.T) {
	var c Completion
	c.Init(nil)
	c.Poke()
	if err := c.Wait(context.Background()); !errors.Is(err, ErrPoked) {
		t.Fatalf("Wait = %v", err)
	}
	for range 1000 {
		c := new(Completion)
		go c.Poke()
		go c.Done()
		for {
			err := c.Wait(context.Background())
			if err == nil {
				break
			}
			if !errors.Is(err, ErrPoked) {
				t.Fatalf("Wait = %v", err)
			}
		}
		if !c.IsDone() {
			t.Fatal("Wait returned nil before Done")
		}
	}
}
