package measure

import "runtime"

// Allocations is the name in Extra of how many pieces of memory an operation takes.
const Allocations = "allocations"

// RunShort is Run for operations that take no longer than to read the clock: op does
// batch of them, and p.Ops counts calls of op. The result has no latencies, and how many
// allocations an operation took.
func RunShort(p Plan, batch int64, op func(worker int) error) (*Result, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := Run(p, op)
	if err != nil {
		return nil, err
	}
	runtime.ReadMemStats(&after)
	r.Ops *= batch
	r.P50US, r.P99US, r.P999US = 0, 0, 0
	r.Extra = map[string]float64{Allocations: float64(after.Mallocs-before.Mallocs) / float64(max(r.Ops, 1))}
	return r, nil
}
