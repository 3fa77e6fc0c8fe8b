package main

import (
	"context"
	"fmt"
	"math"
	"strconv"

	"github.com/mpool-go/mpool/scope"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// The variants of the row, and of its anchor.
const (
	scopeReserve = "reserve" // memory is reserved and released
	scopeSpan    = "span"    // a span is begun, reserves memory, and is done
)

// scopeBatch is how many operations are between two looks at the clock.
const scopeBatch = 1000

// noAllocation is the most that is none: those of the runtime's own are counted too.
const noAllocation = 0.01

// The metrics of operations that take less than a microsecond.
var (
	cpuNanoseconds = metric{"ns CPU/op", func(r *measure.Result) float64 { return r.CPU() * 1e3 }}
	allocations    = extra(measure.Allocations, "allocations/op")
)

// scope compares reserving memory through four scopes with go-libp2p's resource manager.
func (b *bench) scope(ctx context.Context) error {
	for _, kind := range []string{scopeReserve, scopeSpan} {
		for _, n := range []int{1, 2} {
			plan := []string{"-time", b.time.String(), "-flight", strconv.Itoa(n), "-kind", kind}
			all, err := b.alternate(ctx, b.worker("scope", "scope", plan...),
				b.anchor("go-libp2p", append([]string{"libp2p"}, plan...)...))
			if err != nil {
				return err
			}
			name := fmt.Sprintf("%s and release through 4 levels, %d at once", kind, n)
			b.report(name, opsPerSecond, all[0], all[1], ratioAtLeast, 1, 3)
			b.report(name, cpuNanoseconds, all[0], all[1], ratioAtMost, 0, 0)
			b.report(name, allocations, all[0], all[1], valueAtMost, noAllocation, 0)
		}
	}
	return nil
}

// scopeWork reserves and releases memory in scopes that have three others above them,
// two of which all workers share.
func scopeWork(_ context.Context, o *options) (*measure.Result, error) {
	limit := map[scope.Kind]scope.Limit{scope.Memory: scope.Fixed(math.MaxInt64 / 2)}
	m, err := scope.New(scope.Options{Layers: map[string]scope.Layer{"file": {
		"system": limit, "service": limit, "client": limit, "connection": limit,
	}}})
	if err != nil {
		return nil, err
	}
	service, err := m.Service("data")
	if err != nil {
		return nil, err
	}
	one := scopeReserveRelease
	if o.kind == scopeSpan {
		one = scopeSpanDone
	}
	lowest := make([]*scope.Scope, o.plan.Workers)
	for w := range lowest {
		if lowest[w], err = m.Open(fmt.Sprintf("client:%d", w), service); err != nil {
			return nil, err
		}
		if o.kind == scopeSpan {
			continue // the span is the fourth
		}
		if lowest[w], err = m.Open(fmt.Sprintf("connection:%d", w), lowest[w]); err != nil {
			return nil, err
		}
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	return measure.RunShort(o.plan, scopeBatch, func(w int) error { return one(lowest[w]) })
}

// scopeBytes is what is reserved at a time.
const scopeBytes = 4096

func scopeReserveRelease(s *scope.Scope) error {
	for range scopeBatch {
		if err := s.ReserveMemory(scopeBytes, scope.MaxPriority); err != nil {
			return err
		}
		if err := s.ReleaseMemory(scopeBytes); err != nil {
			return err
		}
	}
	return nil
}

func scopeSpanDone(s *scope.Scope) error {
	for range scopeBatch {
		n, err := s.BeginSpan()
		if err != nil {
			return err
		}
		if err := n.ReserveMemory(scopeBytes, scope.MaxPriority); err != nil {
			return err
		}
		if err := n.Done(); err != nil {
			return err
		}
	}
	return nil
}
