package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
)

// lies are what became of what flushes lied about.
type lies struct{ kept, lost, found atomic.Int64 }

// lied plays a scenario in which flushes of a disk lie, and the power goes. What is
// lost is not survived: it is found (ECORRUPT, or a drive that is behind), or the
// pool is as it was after fewer steps. It is nothing that never was.
func (sc *scenario) lied(disk int, f devsim.Fault, n *lies) (states int, err error) {
	r := sc.play()
	if err := r.run(len(sc.states), false, func() { r.disks[disk].Inject(f) }); err != nil {
		return 0, err
	}
	rng := rand.New(rand.NewPCG(f.Skip, uint64(disk)))
	for _, mode := range []devsim.CutMode{devsim.CutNone, devsim.CutDraw} {
		after, cut := r.disks.Survivor(rng, devsim.CutOptions{Mode: mode})
		got, _, err := sc.state(after)
		states++
		at := slices.Index(sc.states, got)
		var broken *api.Error
		switch {
		case err == nil && r.err == nil && got == sc.states[r.acked]:
			n.kept.Add(1)
		case err == nil && (at >= 0 || sc.ruins):
			n.lost.Add(1)
		case err == nil:
			return states, fmt.Errorf("%v: found is what never was:\n%s", cut, got)
		case errors.As(err, &broken), isProblem(err):
			n.found.Add(1)
		default:
			return states, fmt.Errorf("%v: %w", cut, err)
		}
	}
	return states, nil
}

// Flushes lie, once or from some moment on, and then the power goes: no byte is
// returned that was not written.
//
// proves S14 S23
func TestLyingFlushes(t *testing.T) {
	var list []trial
	var n lies
	for _, sc := range mustPrepare(t) {
		for disk, flushes := range sc.flushes {
			for at := range uint64(flushes) {
				for _, count := range []uint64{0, 1} {
					f := devsim.Fault{Code: bdev.OpFlush, Effect: devsim.EffectLost, Skip: at, Count: count}
					list = append(list, trial{
						fmt.Sprintf("%s, flush %d of disk %d, %d times", sc.name, at, disk, count),
						func() (int, error) { return sc.lied(disk, f, &n) },
					})
				}
			}
		}
	}
	tryAll(t, list)
	t.Logf("what flushes lied about: %d nothing lost, %d lost without a trace, %d found", n.kept.Load(), n.lost.Load(), n.found.Load())
}
