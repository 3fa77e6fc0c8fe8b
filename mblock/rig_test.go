package mblock

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// rig is a drive with room for one mblock at a time, and who counts its pins.
type rig struct {
	tb    testing.TB
	s     *sched.Sched
	disk  *sim.Disk
	drive *bdev.Drive

	pins    atomic.Int64
	refuse  atomic.Bool // Pin refuses
	pinned  atomic.Int64
	objects uint64
}

const rigStart = 16 // block of the disk at which extents begin

// newRig makes a rig on a disk with room for an mblock of the capacity. In a
// simulation it must be called by a task.
func newRig(tb testing.TB, s *sched.Sched, disk *sim.Disk) *rig {
	tb.Helper()
	drive, err := sim.Open(s, disk, sim.OpenOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	return &rig{tb: tb, s: s, disk: disk, drive: drive}
}

// diskFor makes a disk for an mblock of the capacity.
func diskFor(capacity int64) *sim.Disk {
	return sim.NewDisk((rigStart+int64(BlocksFor(capacity)))*blockSize, sim.DiskOptions{})
}

// config makes a new object's configuration.
func (r *rig) config(capacity int64) Config {
	r.objects++
	return Config{
		Sched: r.s, Drive: r.drive,
		Extent:   layout.Extent{Start: rigStart, Blocks: BlocksFor(capacity)},
		ID:       layout.NewObjectID(layout.KindMblock, r.objects),
		Birth:    layout.BirthStamp(0x1122334455667700 + r.objects),
		Capacity: capacity,
		Pin: func() bool {
			if r.refuse.Load() {
				return false
			}
			r.pins.Add(1)
			r.pinned.Add(1)
			return true
		},
		Unpin: func() { r.pins.Add(-1) },
	}
}

// write makes a sealed object of the data.
func (r *rig) write(data []byte) (Config, layout.Object) {
	r.tb.Helper()
	c := r.config(int64(len(data)))
	w := NewWriter(c)
	if n, err := w.Write(context.Background(), data); err != nil || n != len(data) {
		r.tb.Fatalf("write %d: %d, %v", len(data), n, err)
	}
	return c, r.seal(c, w)
}

func (r *rig) seal(c Config, w *Writer) layout.Object {
	r.tb.Helper()
	s, err := w.Seal(context.Background())
	if err != nil {
		r.tb.Fatalf("seal: %v", err)
	}
	return object(c, s)
}

func object(c Config, s Sealed) layout.Object {
	return layout.Object{ID: c.ID, Birth: c.Birth, Extent: c.Extent, Written: uint64(s.Written), Sums: s.Sums}
}

// on returns the configuration on another disk, opened inline.
func on(tb testing.TB, c Config, d *sim.Disk) Config {
	tb.Helper()
	drive, err := sim.Open(nil, d, sim.OpenOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	c.Sched, c.Drive, c.Pin, c.Unpin = nil, drive, nil, nil
	return c
}

// simulate runs f as the main task of a simulation.
func simulate(tb testing.TB, seed uint64, f func(s *sched.Sched)) {
	tb.Helper()
	s := sched.New(seed)
	if err := s.Run(func() { f(s) }); err != nil {
		tb.Fatalf("seed %d: %v", seed, err)
	}
}

// random returns bytes that follow from n and seed.
func random(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 99))
	b := alignedBytes(n+8, 0)
	for at := 0; at < n; at += 8 {
		binary.LittleEndian.PutUint64(b[at:], rng.Uint64())
	}
	return b[:n:n]
}

// alignedBytes returns n bytes of the heap that begin skip bytes after a
// multiple of 4096.
func alignedBytes(n, skip int) []byte {
	b := make([]byte, n+2*blockSize)
	for i := range b {
		if bdev.Aligned(b[i : i+blockSize]) {
			return b[i+skip : i+skip+n : i+skip+n]
		}
	}
	panic("no aligned byte")
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// seeds is how many seeds a test in the simulator runs through: n, or fewer under
// the race detector. One task runs at a time there: nothing races.
func seeds(n uint64) uint64 {
	if raced {
		return max(1, n/5)
	}
	return n
}
