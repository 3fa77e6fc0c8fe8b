package sim

import (
	"fmt"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/sched"
)

// scrub scrubs the pool beside the workers, of every third seed, again and again.
// It must find nothing, and the workers, who take every refusal for a failure, must
// not notice. The returned function ends it.
//
// proves S14 S15 S45
func (w *world) scrub(s *sched.Sched, p *mpool.Pool, failed *error) (end func() error) {
	if w.seed%3 != 0 {
		return func() error { return nil }
	}
	over := false
	var done sched.Completion
	done.Init(s)
	s.Go("scrub", func() {
		defer done.Done()
		var from api.ScrubCursor
		for !over && *failed == nil {
			step, err := p.Scrub(ctx, from, 1+s.Rand().Int64N(200_000))
			if err != nil || len(step.Problems) > 0 {
				*failed = fmt.Errorf("scrub from %+v: %w, %+v", from, err, step.Problems)
				return
			}
			from = step.Next
			if step.Done {
				from = api.ScrubCursor{}
			}
			if s.Sleep(ctx, time.Duration(s.Rand().IntN(2000))*time.Microsecond) != nil {
				return
			}
		}
	})
	return func() error {
		over = true
		return done.Wait(ctx)
	}
}
