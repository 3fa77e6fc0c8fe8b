package uhandle

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// A handle that somebody uses is not taken, and one that is taken is stale.
//
// proves S31 S35
func TestTake(t *testing.T) {
	tab := New[string](10, 1)
	h, err := tab.Add(kindA, 1, "x")
	if err != nil {
		t.Fatal(err)
	}
	yes := func(string) error { return nil }
	e, err := tab.Use(h, kindA)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Take(h, yes); !errors.Is(err, ErrInUse) {
		t.Errorf("in use: %v", err)
	}
	if tab.Done(e) {
		t.Error("it is to be released, and was not ended")
	}
	if v, err := tab.Take(h, yes); v != "x" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	if _, err := tab.Use(h, kindA); !errors.Is(err, ErrBad) {
		t.Errorf("taken: %v", err)
	}
	if n, idle := tab.Close(), tab.Rest(1); n != 0 || len(idle) != 0 {
		t.Errorf("closed %d, %d idle", n, len(idle))
	}
}

// What is reserved when the table is closed is never filled, and does not count as
// a handle that ended.
func TestReservedAtClose(t *testing.T) {
	tab := New[string](10, 1)
	h, err := tab.Reserve(kindA)
	if err != nil {
		t.Fatal(err)
	}
	if n, idle := tab.Close(), tab.Rest(1); n != 0 || len(idle) != 0 {
		t.Errorf("closed %d, %d idle", n, len(idle))
	}
	if err := tab.Fill(h, 1, "x"); !errors.Is(err, ErrClosed) {
		t.Errorf("filled: %v", err)
	}
	tab.Unreserve(h)
	if _, err := tab.Reserve(kindA); !errors.Is(err, ErrClosed) || tab.Len() != 0 {
		t.Errorf("%d handles, %v", tab.Len(), err)
	}
}

// Values that move between tables that are closed meanwhile are each released
// exactly once, by whoever has it.
//
// proves S31 S33 S35
func TestMovedAndClosed(t *testing.T) {
	for range 200 {
		const n = 16
		var released [n]atomic.Int32
		tabs := [2]*Table[int]{New[int](n, 1), New[int](n, 2)}
		handles := make([]Handle, n)
		for v := range n {
			h, err := tabs[0].Add(kindA, 1, v)
			if err != nil {
				t.Fatal(err)
			}
			handles[v] = h
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for _, h := range handles {
				to, err := tabs[1].Reserve(kindA)
				if err != nil {
					return
				}
				v, err := tabs[0].Take(h, func(int) error { return nil })
				if err != nil {
					tabs[1].Unreserve(to)
				} else if err := tabs[1].Fill(to, 1, v); err != nil {
					released[v].Add(1)
				}
			}
		})
		for _, tab := range tabs {
			wg.Go(func() {
				tab.Close()
				for _, v := range tab.Rest(len(released)) {
					released[v].Add(1)
				}
			})
		}
		wg.Wait()
		for v := range released {
			if got := released[v].Load(); got != 1 {
				t.Fatalf("value %d was released %d times", v, got)
			}
		}
	}
}
