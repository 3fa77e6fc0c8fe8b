package mpool

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/mpool-go/mpool/api"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/sched"
)

// proves S2 S3: an activation that is cut off at any write, and after it another
// one at any write, each leaving its last writes torn and unreadable: the next one
// succeeds, also when the first has only begun to write copies of the superblock.
func TestTwoActivationsCutOff(t *testing.T) {
	if raced {
		t.Skip("one task at a time: there is nothing to race")
	}
	fresh := newRackRig(t, 1, 12*mib, 2, 1)
	for i, d := range fresh.disks {
		o := d.Options()
		o.PhysicalSector = 4096
		fresh.disks[i] = devsim.NewDisk(d.Size(), o)
	}
	fresh.meta = 64 << 10
	fresh = fresh.again(1, fresh.disks)
	fresh.run(func() { fresh.create(api.CreateOptions{}) })
	// cut cuts an activation off at a boundary; nil: it has fewer.
	cut := func(disks devsim.Rack, at uint64, rng *rand.Rand) devsim.Rack {
		r := fresh.again(at, disks.Clone())
		cutter := &devsim.Cutter{Sched: r.s, At: at}
		r.open.OnIO = cutter.OnIO
		err := r.s.Run(func() { _ = r.activate().Close() })
		if err == nil {
			return nil
		}
		if !errors.Is(err, sched.ErrCut) {
			t.Fatal(err)
		}
		mode := []devsim.CutMode{devsim.CutTornAll, devsim.CutNone, devsim.CutDraw}[rng.IntN(3)]
		after, _ := r.disks.Survivor(rng, devsim.CutOptions{Mode: mode})
		return after
	}
	states := 0
	for first := uint64(1); ; first++ {
		rng := rand.New(rand.NewPCG(first, 2))
		once := cut(fresh.disks, first, rng)
		if once == nil {
			break
		}
		for second := uint64(1) + rng.Uint64N(4); ; second += 1 + rng.Uint64N(7) {
			twice := cut(once, second, rng)
			if twice == nil {
				break
			}
			states++
			r := fresh.again(second, twice)
			r.run(func() {
				p, err := r.activateOn(r.paths(), api.ActivateOptions{})
				if err != nil {
					t.Fatalf("after cuts at boundaries %d and %d: %v", first, second, err)
				}
				r.ok(p.Close())
			})
		}
	}
	if states < 500 {
		t.Errorf("%d states", states)
	}
	t.Logf("%d states", states)
}
