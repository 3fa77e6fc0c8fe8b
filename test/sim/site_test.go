package sim

import (
	"fmt"
	"syscall"
	"testing"

	devsim "github.com/mpool-go/mpool/bdev/sim"
)

// sites are the ways an I/O fails in turn: once, once for want of space, from then
// on, and with the drive.
var sites = []devsim.Fault{
	{Err: syscall.EIO, Count: 1},
	{Err: syscall.ENOSPC, Count: 1},
	{Err: syscall.EIO},
	{Err: syscall.ENODEV},
}

// everySite runs one seed's short workload once for each of its I/Os on each disk,
// and lets that fail.
func everySite(seed uint64, sh shape, stop func() bool) (states int, err error) {
	ops := min(4, sh.ops)
	first := newWorld(seed, sh)
	if err := first.create(); err != nil {
		return 0, err
	}
	for disk := range first.disks {
		for _, f := range sites {
			for f.Skip = 0; states == 0 || !stop(); f.Skip++ {
				w := newWorld(seed, sh)
				w.disks = first.disks.Clone()
				err := w.failed(trouble{faults: true, site: &site{disk, f}}, int(f.Skip)%endCut, ops)
				states += w.states
				if err != nil {
					return states, fmt.Errorf("I/O %d of disk %d fails (%w, %d times): %w", f.Skip, disk, f.Err, f.Count, err)
				}
				if w.hits == 0 {
					break // there are no more
				}
			}
		}
	}
	return states, nil
}

// failed runs the workload in trouble and compares what is left with the model.
func (w *world) failed(tr trouble, end, ops int) error {
	cut, err := w.disturb(tr, end, ops)
	if err != nil {
		return err
	}
	if cut {
		how, _ := w.disks.Survivor(w.rng, devsim.CutOptions{})
		if err := w.afterTrouble(how, false); err != nil {
			return fmt.Errorf("survivor of a power cut: %w", err)
		}
		w.disks.PowerCut(w.rng, devsim.CutOptions{})
	}
	return w.afterTrouble(w.disks, true)
}

// Each I/O of a short workload fails in turn: whatever an operation says is what is
// found, and nothing that failed is acknowledged later.
//
// proves S7 S12 S15 S21 S22 S26 S30 S40
func TestEverySite(t *testing.T) { sweep(t, everySite) }
