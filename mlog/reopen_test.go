package mlog

import (
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// After a failed flush what can be read may be gone with the power: a log is not
// opened again on the same drive, or else nothing on top of it would be durable.
//
// proves S40
func TestReopenAfterFailedFlush(t *testing.T) {
	bad, reopened := 0, 0
	for seed := range uint64(300) {
		disk := sim.NewDisk(4<<20, sim.DiskOptions{})
		s := sched.New(seed)
		acked := 0
		var c Config
		err := s.Run(func() {
			d, err := sim.Open(s, disk, sim.OpenOptions{})
			if err != nil {
				panic(err)
			}
			c = Config{Sched: s, Drive: d, Birth: 5, Epoch: 1, Generation: 1, Extent: layout.Extent{Start: 16, Blocks: 32}}
			if err := Format(bg, c, 0); err != nil {
				panic(err)
			}
			l, err := Open(bg, c)
			if err != nil {
				panic(err)
			}
			for range 5 {
				if _, err := l.AppendSync(bg, make([]byte, 3000)); err != nil {
					panic(err)
				}
			}
			disk.Inject(sim.Fault{Code: bdev.OpFlush, Count: 1, Err: syscall.EIO})
			if _, err = l.AppendSync(bg, make([]byte, 9000)); err == nil {
				panic("no error")
			}
			_ = l.Abandon(bg)
			if l, err = Open(bg, c); err != nil {
				return
			}
			reopened++
			for range 2 {
				if _, err := l.AppendSync(bg, make([]byte, 3000)); err != nil {
					return
				}
			}
			acked = int(l.Records())
			_ = l.Abandon(bg)
		})
		if err != nil {
			t.Fatal(err)
		}
		if acked == 0 {
			continue
		}
		after, _ := disk.Survivor(rand.New(rand.NewPCG(seed, 1)), sim.CutOptions{Mode: sim.CutNone})
		d, _ := sim.Open(nil, after, sim.OpenOptions{})
		c.Sched, c.Drive, c.Epoch = nil, d, 2
		l, err := Open(bg, c)
		if err != nil || int(l.Records()) < acked {
			bad++
		}
	}
	if bad > 0 || reopened > 0 {
		t.Errorf("%d logs were opened again; %d lost acknowledged records", reopened, bad)
	}
}
