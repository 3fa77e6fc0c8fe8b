package planted

import (
	"context"
	"maps"
	oldrand "math/rand" // want "math/rand"
	"math/rand/v2"
	"runtime"
	"sync" // want "sync"
	clock "time"
)

var mu sync.Mutex

type waiters []chan struct{} // want "chan"

func starts() {
	go starts()       // want "go"
	runtime.Gosched() // want "runtime.Gosched"
	mu.Lock()
	_ = oldrand.Int()
}

func waits(ctx context.Context, in waiters) {
	select { // want "select"
	case <-ctx.Done(): // want "chan"
	case in[0] <- struct{}{}: // want "chan"
	}
	for range in[0] { // want "chan"
	}
	ctx, cancel := context.WithTimeout(ctx, clock.Second) // want "context.WithTimeout"
	defer cancel()
	_, stop := context.WithCancel(ctx) // want "context.WithCancel"
	stop()
}

func times() clock.Time {
	clock.Sleep(1)         // want "time.Sleep"
	<-clock.After(1)       // want "chan"
	t := clock.NewTimer(1) // want "time.NewTimer"
	t.Stop()
	for range clock.Tick(1) { // want "time.Tick"
	}
	f := clock.Now // want "time.Now"
	return f()
}

func draws() int { return rand.IntN(6) } // want "math/rand/v2.IntN"

type set map[int]bool

func orders[M ~map[int]bool](a map[int]int, b set, c M) (n int) {
	for k := range a { // want "map order"
		n = k
	}
	for k := range b { // want "map order"
		n = k
	}
	for k := range c { // want "map order"
		n = k
	}
	for k := range a { /* // want "map order" */ // order does not matter:
		n = k
	}
	for k := range a { // order is of no concern // want "map order"
		n = k
	}
	// order does not matter: this is not the line of the loop
	for k := range a { // want "map order"
		n = k
	}
	for k := range maps.Keys(a) { // want "map order"
		n = k
	}
	return n
}
