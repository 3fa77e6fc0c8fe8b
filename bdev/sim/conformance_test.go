package sim

import (
	"testing"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
	"github.com/mpool-go/mpool/test/bdevtest"
)

// The simulated device is an engine like the others: in simulations, with
// latency and without, and without a simulation.
func TestConformance(t *testing.T) {
	for _, c := range []struct {
		name string
		disk DiskOptions
		seed uint64 // 0: no simulation
		open OpenOptions
	}{
		{"real", DiskOptions{Discard: true}, 0, OpenOptions{}},
		{"inline", DiskOptions{}, 1, OpenOptions{Inline: true}},
		{"seed 2", DiskOptions{}, 2, OpenOptions{}},
		{"seed 3", DiskOptions{Discard: true, PhysicalSector: 4096}, 3, OpenOptions{}},
		{"seed 4", DiskOptions{LogicalSector: 4096, WriteThrough: true}, 4, OpenOptions{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := NewDisk(bdevtest.MinSize, c.disk)
			var s *sched.Sched
			suite := func() {
				bdevtest.Run(t, func(t *testing.T) *bdev.Drive {
					t.Helper()
					return mustOpen(t, s, d, c.open)
				})
			}
			if c.seed == 0 {
				suite()
				return
			}
			s = sched.New(c.seed)
			if err := s.Run(suite); err != nil {
				t.Fatal(err)
			}
		})
	}
}
