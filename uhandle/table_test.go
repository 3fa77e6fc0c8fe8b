package uhandle

import (
	"errors"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

const (
	kindA Kind = 1
	kindB Kind = 2
)

// A handle is refused once it is stale, of another kind, another table's, or
// was never given.
//
// proves S31
func TestBadHandles(t *testing.T) {
	a, b := New[string](100, 1000), New[string](100, 2000)
	h, err := a.Add(kindA, 0, "x")
	if err != nil {
		t.Fatal(err)
	}
	e, err := a.Use(h, kindB, kindA)
	if err != nil || e.Value != "x" {
		t.Fatalf("%v, %v", e, err)
	}
	if _, err := a.Use(h, kindB); !errors.Is(err, ErrBad) {
		t.Errorf("of another kind: %v", err)
	}
	if _, err := a.Use(h); !errors.Is(err, ErrBad) {
		t.Errorf("of no kind: %v", err)
	}
	if _, err := b.Add(kindA, 0, "y"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Use(h, kindA); !errors.Is(err, ErrBad) {
		t.Errorf("of another table: %v", err)
	}
	for _, never := range []Handle{0, 1, h + 1, h ^ 1<<24, h ^ 1<<32, ^Handle(0), h | slotMask} {
		if _, err := a.Use(never, kindA, kindB, 0, 255); !errors.Is(err, ErrBad) {
			t.Errorf("%#x, never given: %v", never, err)
		}
	}
	if !a.End(e) || a.End(e) {
		t.Error("did not end once")
	}
	if _, err := a.Use(h, kindA); !errors.Is(err, ErrBad) {
		t.Errorf("stale while in use: %v", err)
	}
	if !a.Done(e) {
		t.Error("the last user was not told to release")
	}
	// The slot comes back with another number.
	for range 1000 {
		again, err := a.Add(kindA, 0, "z")
		if err != nil {
			t.Fatal(err)
		}
		if again == h {
			t.Fatal("a number was given twice")
		}
		e, err := a.Use(again, kindA)
		if err != nil {
			t.Fatal(err)
		}
		a.End(e)
		a.Done(e)
		if _, err := a.Use(h, kindA); !errors.Is(err, ErrBad) {
			t.Fatalf("stale: %v", err)
		}
	}
}

func TestFullAndClosed(t *testing.T) {
	tab := New[int](3, ^uint32(0)) // the first generation would be 0
	for i := range 3 {
		if h, err := tab.Add(kindA, uint64(i), i); err != nil || h>>32 == 0 {
			t.Fatalf("%#x, %v", h, err)
		}
	}
	if _, err := tab.Add(kindA, 0, 3); !errors.Is(err, ErrFull) {
		t.Errorf("a fourth of three: %v", err)
	}
	if rest := tab.Rest(4); rest != nil {
		t.Errorf("took %v of a table that is open", rest)
	}
	if n := tab.Close(); n != 3 || tab.Len() != 0 {
		t.Errorf("closed %d, %d are left", n, tab.Len())
	}
	if n := tab.Close(); n != 0 {
		t.Errorf("closed again: %d", n)
	}
	if one, two, none := tab.Rest(2), tab.Rest(2), tab.Rest(2); len(one) != 2 || len(two) != 1 || none != nil {
		t.Errorf("took %v, %v, %v", one, two, none)
	}
	if _, err := tab.Add(kindA, 0, 3); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}

// Each value is released exactly once, whoever ends it.
//
// proves S33
func TestReleasedOnce(t *testing.T) {
	for range 50 {
		tab := New[int](1000, 7)
		const n = 20
		var mu sync.Mutex
		released := map[int]int{}
		release := func(v int) {
			mu.Lock()
			released[v]++
			mu.Unlock()
		}
		handles := make([]Handle, n)
		for i := range handles {
			h, err := tab.Add(kindA, uint64(i), i)
			if err != nil {
				t.Fatal(err)
			}
			handles[i] = h
		}
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for _, h := range handles {
					e, err := tab.Use(h, kindA)
					if err != nil {
						continue
					}
					if g%2 == 0 {
						tab.End(e)
					}
					if tab.Done(e) {
						release(e.Value)
					}
				}
			})
		}
		wg.Go(func() {
			tab.Close()
			for rest := tab.Rest(3); len(rest) > 0; rest = tab.Rest(3) {
				for _, v := range rest {
					release(v)
				}
			}
		})
		wg.Go(func() {
			for range 10 {
				for _, v := range tab.TakeOf(uint64(n/2), kindA, kindB) {
					release(v)
				}
			}
		})
		wg.Wait()
		for i := range n {
			if released[i] != 1 {
				t.Fatalf("value %d was released %d times", i, released[i])
			}
		}
	}
}

// The table behaves as a map from numbers that are never given twice.
//
// proves S31
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 100).Draw(t, "limit")
		tab := New[int](limit, rapid.Uint32().Draw(t, "first"))
		type held struct {
			kind Kind
			v    int
		}
		live := map[Handle]held{}
		var given, reserved []Handle
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				k := Kind(rapid.IntRange(1, 255).Draw(t, "kind"))
				h, err := tab.Add(k, uint64(len(given)%3), len(given))
				if full := len(live)+len(reserved) == limit; full != errors.Is(err, ErrFull) {
					t.Fatalf("%d of %d: %v", len(live)+len(reserved), limit, err)
				}
				if err != nil {
					return
				}
				for _, g := range given {
					if g == h {
						t.Fatalf("%#x given twice", h)
					}
				}
				live[h] = held{k, len(given)}
				given = append(given, h)
			},
			"end": func(t *rapid.T) {
				if len(given) == 0 {
					t.Skip()
				}
				h := rapid.SampledFrom(given).Draw(t, "handle")
				want, ok := live[h]
				e, err := tab.Use(h, h.Kind())
				if ok != (err == nil) {
					t.Fatalf("live %v, %v", ok, err)
				}
				if !ok {
					return
				}
				if e.Value != want.v || h.Kind() != want.kind {
					t.Fatalf("%#x stands for %v, want %v", h, e.Value, want)
				}
				if !tab.End(e) || !tab.Done(e) {
					t.Fatal("did not end")
				}
				delete(live, h)
			},
			"reserve": func(t *rapid.T) {
				h, err := tab.Reserve(kindA)
				if full := len(live)+len(reserved) == limit; full != errors.Is(err, ErrFull) {
					t.Fatalf("%d of %d: %v", len(live)+len(reserved), limit, err)
				}
				if err == nil {
					reserved = append(reserved, h)
				}
			},
			"fill": func(t *rapid.T) {
				if len(reserved) == 0 {
					t.Skip()
				}
				h := reserved[0]
				reserved = reserved[1:]
				if _, err := tab.Use(h, kindA); !errors.Is(err, ErrBad) {
					t.Fatalf("reserved only: %v", err)
				}
				if rapid.Bool().Draw(t, "give up") {
					tab.Unreserve(h)
					given = append(given, h) // and never again
					return
				}
				if err := tab.Fill(h, uint64(len(given)%3), len(given)); err != nil {
					t.Fatal(err)
				}
				live[h] = held{kindA, len(given)}
				given = append(given, h)
			},
			"take": func(t *rapid.T) {
				if len(given) == 0 {
					t.Skip()
				}
				h := rapid.SampledFrom(given).Draw(t, "handle")
				want, ok := live[h]
				refuse := rapid.Bool().Draw(t, "refuse")
				no := errors.New("no")
				v, err := tab.Take(h, func(v int) error {
					if v != want.v {
						t.Fatalf("%#x stands for %v, want %v", h, v, want)
					}
					if refuse {
						return no
					}
					return nil
				})
				switch {
				case !ok && errors.Is(err, ErrBad), ok && refuse && errors.Is(err, no):
				case ok && !refuse && err == nil && v == want.v:
					delete(live, h)
				default:
					t.Fatalf("live %v, refused %v: %v, %v", ok, refuse, v, err)
				}
			},
			"": func(t *rapid.T) {
				if tab.Len() != len(live)+len(reserved) {
					t.Fatalf("%d handles, want %d", tab.Len(), len(live)+len(reserved))
				}
				n := 0
				tab.Each(func(h Handle, v int) {
					n++
					if live[h].v != v {
						t.Fatalf("%#x is %d, want %v", h, v, live[h])
					}
				})
				if n != len(live) {
					t.Fatalf("each saw %d of %d", n, len(live))
				}
			},
		})
	})
}
