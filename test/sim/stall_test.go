package sim

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/sched"
)

// prompt is how long a worker's operation may take that does not need the drive
// that hangs.
const prompt = 2 * time.Second

// hung activates the pool and lets two workers use the class capacity and one
// the class staging, whose drives hang from some moment on. The former must not
// notice. Then the pool is abandoned, and when everything has ended the power
// goes.
func (w *world) hung(ops int) error {
	s := sched.New(w.rng.Uint64())
	var failed error
	err := inSim(s, func() {
		p, err := w.activate(s, w.disks, devsim.OpenOptions{})
		must(err)
		for _, path := range w.staging {
			w.disks.Disk(path).Inject(devsim.Fault{Delay: time.Hour, Skip: w.rng.Uint64N(200)})
		}
		var done [workers]sched.Completion
		for n := range workers {
			begin(s, &done[n], &failed, func() {
				wk := w.worker(n, s, p)
				class := api.ClassCapacity
				wk.only = &class
				if n == workers-1 {
					class = api.ClassStaging
					u := &unsure{worker: wk, trouble: trouble{deadlines: true}}
					u.run(ops / 2)
					return
				}
				for range ops {
					start := s.Now()
					wk.run(1)
					if d := s.Now().Sub(start); d > prompt {
						must(fmt.Errorf("an operation that does not need the drive that hangs took %v (S42)", d))
					}
				}
			})
		}
		for n := range workers - 1 {
			must(done[n].Wait(ctx))
		}
		must(failed)
		w.heal()
		must(done[workers-1].Wait(ctx))
		must(failed)
		end, cancel := s.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := p.Abandon(end); err != nil && !errors.Is(err, api.EUNKNOWN) {
			must(err)
		}
		must(s.Sleep(ctx, 10*time.Hour)) // what was under way has ended
	})
	if failed != nil {
		return failed
	}
	return err
}

// stalled runs one seed.
func stalled(seed uint64, sh shape) (states int, err error) {
	w := newWorld(seed, sh)
	for len(w.staging) == 0 {
		seed += 1 << 32
		w = newWorld(seed, sh)
	}
	if err := w.create(); err != nil {
		return 0, fmt.Errorf("create: %w", err)
	}
	for cycle := range sh.cycles {
		if err := w.hung(sh.ops); err != nil {
			return w.states, fmt.Errorf("cycle %d: %w", cycle, err)
		}
		w.disks.PowerCut(w.rng, devsim.CutOptions{})
		if err := w.afterTrouble(w.disks, true); err != nil {
			return w.states, fmt.Errorf("cycle %d: %w", cycle, err)
		}
	}
	return w.states, nil
}

// One class hangs, for hours: what does not need it goes on as if nothing were,
// and nothing that was acknowledged is lost.
//
// proves S12 S15 S22 S26 S42 S46
func TestStalledClass(t *testing.T) {
	if *driveFlag == 1 {
		t.Skip("a pool of one drive has no second class")
	}
	sweep(t, func(seed uint64, sh shape, _ func() bool) (int, error) { return stalled(seed, sh) })
}
