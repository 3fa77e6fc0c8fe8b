package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mpool-go/mpool/ioctl"
)

// plain returns arenas of ordinary memory, of so many pages each.
func plain(sizes ...int) *arenas {
	a := &arenas{l: &link{limits: &ioctl.HelloReply{}}}
	for i, pages := range sizes {
		a.list = append(a.list, &arena{owner: a, id: uint16(i + 1), mem: make([]byte, pages*page), used: make([]bool, pages)})
	}
	return a
}

// Regions never overlap, are as long as asked for, and all come back.
func TestRegions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := plain(rapid.IntRange(1, 40).Draw(t, "first"), rapid.IntRange(1, 40).Draw(t, "second"))
		var held []*region
		owner := map[*byte]int{}
		for i := range 50 {
			if len(held) > 0 && rapid.Bool().Draw(t, "drop") {
				n := rapid.IntRange(0, len(held)-1).Draw(t, "which")
				for off := 0; off < len(held[n].mem); off += page {
					delete(owner, &held[n].mem[off])
				}
				held[n].drop()
				held = append(held[:n], held[n+1:]...)
				continue
			}
			size := rapid.IntRange(1, 20*page).Draw(t, "size")
			ctx, cancel := context.WithCancel(context.Background())
			cancel() // whoever would have to wait gets nothing
			a.mu.Lock()
			fits := a.canHold((size + page - 1) / page)
			a.mu.Unlock()
			if !fits {
				cancel()
				continue
			}
			r, err := a.take(ctx, size)
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				continue
			}
			w := r.window(size)
			if len(r.mem) < size || w.Offset%ioctl.ArenaAlign != 0 || int(w.Offset)+len(r.mem) > len(r.arena.mem) {
				t.Fatalf("asked for %d bytes, got %d at %d of %d", size, len(r.mem), w.Offset, len(r.arena.mem))
			}
			for off := 0; off < len(r.mem); off += page {
				if other, taken := owner[&r.mem[off]]; taken {
					t.Fatalf("regions %d and %d overlap", i, other)
				}
				owner[&r.mem[off]] = i
			}
			held = append(held, r)
		}
		for _, r := range held {
			r.drop()
		}
		for _, x := range a.list {
			if x.busy != 0 {
				t.Fatalf("%d pages are busy", x.busy)
			}
		}
	})
}

// Who waits is served in turn: a large one is not passed by small ones for ever.
func TestRegionsInTurn(t *testing.T) {
	a := plain(10)
	ctx := context.Background()
	small := func() *region {
		r, err := a.take(ctx, page)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	held := small()
	waiting := func(n int) {
		for {
			a.mu.Lock()
			have := len(a.waiters)
			a.mu.Unlock()
			if have == n {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	order := make(chan string, 3)
	var wg sync.WaitGroup
	wg.Go(func() {
		r, err := a.take(ctx, 10*page)
		if err != nil {
			t.Error(err)
			return
		}
		order <- "large"
		r.drop()
	})
	waiting(1)
	impatient, cancel := context.WithCancel(ctx)
	wg.Go(func() {
		if _, err := a.take(impatient, 10*page); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	waiting(2)
	wg.Go(func() {
		r := small() // there is room, but others were first
		order <- "small"
		r.drop()
	})
	waiting(3)
	cancel()
	waiting(2)
	held.drop()
	wg.Wait()
	if first := <-order; first != "large" {
		t.Errorf("%s was first", first)
	}
}

// Many goroutines share a small arena, and no two the same page.
func TestRegionsConcurrent(t *testing.T) {
	a := plain(16)
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for range 300 {
				ctx, cancel := context.WithCancel(context.Background())
				if rng.IntN(4) == 0 {
					cancel()
				}
				r, err := a.take(ctx, 1+rng.IntN(8*page))
				cancel()
				if err != nil {
					continue
				}
				for i := 0; i < len(r.mem); i += page {
					r.mem[i]++ // the race detector sees two at once
				}
				r.keep()
				r.drop()
				r.drop()
			}
		})
	}
	wg.Wait()
	if a.list[0].busy != 0 || len(a.waiters) != 0 {
		t.Errorf("%d pages are busy, %d wait", a.list[0].busy, len(a.waiters))
	}
}

// When the connection is gone nobody waits any more.
func TestRegionsClosed(t *testing.T) {
	a := plain(1)
	r, err := a.take(context.Background(), page)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := a.take(context.Background(), page)
		done <- err
	}()
	for {
		a.mu.Lock()
		n := len(a.waiters)
		a.mu.Unlock()
		if n == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	a.list[0].mem = nil // ordinary memory is not unmapped
	a.close()
	if err := <-done; !errors.Is(err, errNoArena) {
		t.Error(err)
	}
	r.drop()
}
