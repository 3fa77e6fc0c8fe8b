package planted

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

var count atomic.Int64

// clock has methods with the names of forbidden functions.
type clock struct{ at time.Time }

func (c clock) Now() time.Time { return c.at }

func fine(ctx context.Context, m map[string]int, list []int, seq func(func(int) bool)) int {
	var time clock
	n := time.Now().Day()
	for range m { // order does not matter: it only counts
		n++
	}
	for k, v := range m { // order does not matter: a sum
		n += v + len(k)
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		n += m[k]
	}
	all := slices.Collect(maps.Values(m)) // order does not matter: only the length is used
	for i := range list {
		n += i
	}
	for i := range seq {
		n += i
	}
	for range 10 {
		n++
	}
	rng := rand.New(rand.NewPCG(1, 2))
	count.Add(rng.Int64N(10))
	if ctx.Err() != nil {
		return -1
	}
	// A comment may speak of go statements, select and time.Now.
	return n + len(all)
}
