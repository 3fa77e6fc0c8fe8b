package mblock

import (
	"context"
	"sync/atomic"

	"github.com/mpool-go/mpool/sched"
)

// outcome is how a part of a call ended.
type outcome struct {
	part int
	n    int // bytes done of it
	err  error
}

// inLanes does the parts 0 to parts-1 of a call, each beginning in its turn, two
// at a time, so that one part's checksums are computed while the device is at
// the other: at the same CPU time 32 MiB take two thirds of the time that they take
// one part after another, on a device in memory. It begins no more when one has
// failed, and returns when none is at work: with the outcome of the first that
// failed, or of the last.
func inLanes(s *sched.Sched, name string, parts int, do func(part int) (int, error)) outcome {
	if parts == 1 {
		n, err := do(0)
		return outcome{0, n, err}
	}
	var next atomic.Int64
	var failed atomic.Bool
	lane := func(out *outcome) {
		for !failed.Load() {
			part := int(next.Add(1)) - 1
			if part >= parts {
				return
			}
			s.Point()
			n, err := do(part)
			*out = outcome{part, n, err}
			if err != nil {
				failed.Store(true)
			}
		}
	}
	var mine, other outcome
	var end sched.Completion
	end.Init(s)
	s.Go(name, func() {
		lane(&other)
		end.Done()
	})
	lane(&mine)
	// With a context that never ends, it cannot fail.
	if err := end.Wait(context.Background()); err != nil {
		return outcome{err: err}
	}
	first, last := mine, other
	if last.part < first.part {
		first, last = last, first
	}
	if first.err != nil {
		return first
	}
	return last
}
