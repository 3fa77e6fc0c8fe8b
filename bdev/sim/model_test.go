package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// stamped fills sectors with a version that no other write has.
func stamped(sectors int, version uint64) []byte {
	p := aligned(sectors * sectorSize)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], version)
	}
	return p
}

// stamp returns the version of a sector, or an error if it is a mixture.
func stamp(p []byte) (uint64, error) {
	v := binary.LittleEndian.Uint64(p)
	for i := 8; i < sectorSize; i += 8 {
		if got := binary.LittleEndian.Uint64(p[i:]); got != v {
			return 0, fmt.Errorf("a sector holds versions %d and %d", v, got)
		}
	}
	return v, nil
}

// sectorModel is what the model knows of one sector: one version is durable, of
// the others each may be what a power cut leaves.
type sectorModel struct {
	durable  uint64
	volatile []uint64
}

func (m *sectorModel) current() uint64 {
	if n := len(m.volatile); n > 0 {
		return m.volatile[n-1]
	}
	return m.durable
}

func (m *sectorModel) allows(v uint64) bool {
	return v == m.durable || slices.Contains(m.volatile, v)
}

// diskModel is a disk of which each sector is on its own.
type diskModel []sectorModel

func (m diskModel) flush() {
	for i := range m {
		m[i].durable, m[i].volatile = m[i].current(), nil
	}
}

// check compares a disk with what want says of each sector.
func (m diskModel) check(d *Disk, ok func(s *sectorModel, v uint64) bool) error {
	p := make([]byte, sectorSize)
	for i := range m {
		_, err := d.ReadAt(p, int64(i)*sectorSize)
		if err != nil {
			return err
		}
		v, err := stamp(p)
		if err != nil {
			return fmt.Errorf("sector %d: %w", i, err)
		}
		if !ok(&m[i], v) {
			return fmt.Errorf("sector %d has version %d, model %+v", i, v, m[i])
		}
	}
	return nil
}

func isCurrent(s *sectorModel, v uint64) bool { return s.current() == v }

// One operation after another: reads see the newest, survivors hold what the
// model allows, a flush leaves nothing to chance.
func TestSerialDiskMatchesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const sectors = 64
		d := NewDisk(sectors*sectorSize, DiskOptions{
			Discard: true, DiscardRead: DiscardZero,
			CacheBytes: rapid.SampledFrom([]int64{0, 0, 64 << 10}).Draw(t, "cache"),
		})
		drive, err := Open(nil, d, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		m := make(diskModel, sectors)
		steps := rapid.IntRange(1, 40).Draw(t, "steps")
		for i := range steps {
			first := rapid.IntRange(0, sectors-1).Draw(t, "first")
			count := rapid.IntRange(1, min(20, sectors-first)).Draw(t, "count")
			o := &bdev.Op{Offset: int64(first) * sectorSize}
			version := uint64(i + 1)
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1, 2:
				o.Code, o.Buf = bdev.OpWrite, stamped(count, version)
			case 3:
				o.Code, o.Length, version = bdev.OpDiscard, int64(count)*sectorSize, 0
			case 4:
				o.Code = bdev.OpFlush
			}
			if err := drive.Run(context.Background(), &bdev.Batch{Ops: []*bdev.Op{o}}); err != nil {
				t.Fatal(err)
			}
			if o.Code == bdev.OpFlush {
				m.flush()
				survivor, _ := d.Survivor(rng, CutOptions{})
				if err := m.check(survivor, isCurrent); err != nil {
					t.Fatal("after a flush:", err)
				}
			} else {
				for s := first; s < first+count; s++ {
					m[s].volatile = append(m[s].volatile, version)
				}
			}
			if err := m.check(d, isCurrent); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				survivor, cut := d.Survivor(rng, CutOptions{})
				if err := m.check(survivor, (*sectorModel).allows); err != nil {
					t.Fatal(cut, err)
				}
			}
		}
		if err := m.check(d, isCurrent); err != nil {
			t.Fatal("survivors changed the disk:", err)
		}
		if err := drive.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// writerModel is one task's region in the concurrent test: what it wrote last,
// what is acknowledged as durable.
type writerModel struct {
	first           int
	written, synced uint64
}

// In a simulation, tasks write regions of their own and flush through the
// drive. Wherever the power is cut, a region holds nothing older than what its
// task was told is durable and nothing that it did not write.
func TestConcurrentFlushKeepsItsPromise(t *testing.T) {
	for seed := range uint64(100) {
		const tasks, region = 4, 12 // sectors; regions share pages
		d := NewDisk(64<<10, DiskOptions{})
		models := make([]writerModel, tasks)
		for i := range models {
			models[i].first = i * region
		}
		rng := rand.New(rand.NewPCG(seed, 99))
		verify := func() {
			survivor, cut := d.Survivor(rng, CutOptions{})
			p := make([]byte, sectorSize)
			for i := range models {
				m := &models[i]
				for s := range region {
					if _, err := survivor.ReadAt(p, int64(m.first+s)*sectorSize); err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
					v, err := stamp(p)
					if err != nil || v < m.synced || v > m.written {
						t.Fatalf("seed %d: %v: task %d sector %d has version %d (%v), synced %d, written %d",
							seed, cut, i, s, v, err, m.synced, m.written)
					}
				}
			}
		}
		s := sched.New(seed)
		cutter := &Cutter{Sched: s, At: seed%40 + 20}
		err := s.Run(func() {
			drive, err := Open(s, d, OpenOptions{OnIO: func(b Boundary) bool {
				verify()
				return cutter.OnIO(b)
			}})
			if err != nil {
				panic(err)
			}
			for i := range tasks {
				m := &models[i]
				s.Go("writer", func() {
					for {
						ticket := drive.Ticket()
						m.written++
						version := m.written
						o := &bdev.Op{Code: bdev.OpWrite, Offset: int64(m.first) * sectorSize, Buf: stamped(region, version)}
						if err := drive.Run(context.Background(), &bdev.Batch{Ops: []*bdev.Op{o}}); err != nil {
							panic(err)
						}
						if s.Rand().IntN(3) == 0 {
							if err := drive.Flush(context.Background(), ticket); err != nil {
								panic(err)
							}
							m.synced = version
							verify()
						}
					}
				})
			}
		})
		if !errors.Is(err, sched.ErrCut) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for range 20 {
			verify()
		}
		d.Kill(rng)
		for range 20 {
			verify()
		}
	}
}
