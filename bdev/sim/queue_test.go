package sim

import (
	"testing"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// The queue that an I/O loop drives works over simulated disks: several of
// them, ends in any order, none lost.
func TestQueueOverSimulatedDisks(t *testing.T) {
	for seed := range uint64(50) {
		r := Rack{NewDisk(256<<10, DiskOptions{Name: "a"}), NewDisk(256<<10, DiskOptions{Name: "b"})}
		s := sched.New(seed)
		outOfOrder := false
		err := s.Run(func() {
			q, err := bdev.NewQueue(s, bdev.QueueOptions{Depth: 8})
			if err != nil {
				t.Fatal(err)
			}
			drives := []*bdev.Drive{mustOpen(t, s, r[0], OpenOptions{}), mustOpen(t, s, r[1], OpenOptions{})}
			ended, last := 0, uint64(0)
			reap := func(least int) {
				if _, err := q.Reap(least); err != nil {
					t.Error(err)
				}
			}
			for i := range uint64(40) {
				o := writeOp(int64(i)*4096, letters(8, 'A'))
				o.Drive, o.User = drives[i%2], i
				o.OnDone = func(o *bdev.Op) {
					if o.Err != nil {
						t.Error(o.Err)
					}
					outOfOrder = outOfOrder || o.User < last
					ended, last = ended+1, o.User
				}
				for !q.Put(o) {
					reap(1)
				}
			}
			for q.InFlight() > 0 {
				reap(q.InFlight())
			}
			if ended != 40 {
				t.Errorf("seed %d: %d operations ended", seed, ended)
			}
			if err := q.Close(); err != nil {
				t.Error(err)
			}
			for _, d := range drives {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if !outOfOrder {
			t.Errorf("seed %d: all ended in the order of their starts", seed)
		}
	}
}
