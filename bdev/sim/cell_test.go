package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// A cell is the smallest thing that wants a crash-safe device: one durable
// number. The right way is two slots in turn, each with a checksum, and a flush
// before the answer. A device model is worth something if every way of doing
// it wrong is found with it, and the right way never fails.
type cell struct {
	oneSlot     bool // wrong: overwrites its only copy
	noSum       bool // wrong: believes a torn slot
	noFlush     bool // wrong: answers before the number is durable
	earlyFlush  bool // wrong: the flush begins while the write is under way
	shareSector bool // wrong on 4 KiB physical sectors: both slots lie in one
	ignoreFlush bool // wrong: takes a failed flush for a good one
}

func (c cell) offset(n uint64) int64 {
	switch {
	case c.oneSlot:
		return 0
	case c.shareSector:
		return int64(n%2) * 1024
	default:
		return int64(n%2) * 4096
	}
}

func (c cell) store(s *sched.Sched, drive *bdev.Drive, n uint64) error {
	size := 4096
	if c.shareSector {
		size = 1024
	}
	p := aligned(size)
	for i := 0; i < size-8; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], n)
	}
	binary.LittleEndian.PutUint32(p[size-8:], crc32.ChecksumIEEE(p[:size-8]))
	ticket := drive.Ticket()
	w := &bdev.Op{Code: bdev.OpWrite, Offset: c.offset(n), Buf: p}
	if c.earlyFlush {
		var end sched.Completion
		end.Init(s)
		w.OnDone = func(*bdev.Op) { end.Done() }
		drive.Start(w)
		if err := drive.Flush(context.Background(), ticket); err != nil {
			return err
		}
		return end.Wait(context.Background())
	}
	if err := do(drive, w); err != nil || c.noFlush {
		return err
	}
	if err := drive.Flush(context.Background(), ticket); err != nil && !c.ignoreFlush {
		return err
	}
	return nil
}

// load returns the number that a disk holds.
func (c cell) load(d *Disk) (uint64, error) {
	var best uint64
	for slot := range uint64(2) {
		size := 4096
		if c.shareSector {
			size = 1024
		}
		p := make([]byte, size)
		if _, err := d.ReadAt(p, c.offset(slot)); err != nil {
			continue // as good as empty: the other slot must do
		}
		if c.noSum || binary.LittleEndian.Uint32(p[size-8:]) == crc32.ChecksumIEEE(p[:size-8]) {
			best = max(best, binary.LittleEndian.Uint64(p))
			if c.noSum && binary.LittleEndian.Uint64(p[size/2:]) != binary.LittleEndian.Uint64(p) {
				return 0, errors.New("believed a torn slot")
			}
		}
	}
	return best, nil
}

// try stores ten numbers on one seed, cuts the power at one boundary and looks
// at some survivors. It returns what is wrong, if anything.
func (c cell) try(seed uint64) (wrong error) {
	d := NewDisk(16<<10, DiskOptions{PhysicalSector: 4096})
	s := sched.New(seed)
	rng := rand.New(rand.NewPCG(seed, 5))
	cutter := &Cutter{Sched: s, At: 4 + rng.Uint64N(40)}
	if rng.IntN(4) == 0 {
		d.Inject(Fault{Code: bdev.OpFlush, Skip: rng.Uint64N(8), Count: 1, Err: errors.New("flush fault")})
	}
	var asked, told uint64
	err := s.Run(func() {
		drive, err := Open(s, d, OpenOptions{OnIO: cutter.OnIO})
		if err != nil {
			panic(err)
		}
		for asked < 10 {
			asked++
			if c.store(s, drive, asked) != nil {
				return // unknown from here on
			}
			told = asked
		}
	})
	if err != nil && !errors.Is(err, sched.ErrCut) {
		return err
	}
	for range 8 {
		after, cut := d.Survivor(rng, CutOptions{})
		n, err := c.load(after)
		if err != nil {
			return fmt.Errorf("%v: told %d, asked %d: %w", cut, told, asked, err)
		}
		if n < told || n > asked {
			return fmt.Errorf("%v: told %d, asked %d, found %d", cut, told, asked, n)
		}
	}
	return nil
}

func TestWrongCellsAreFoundTheRightOneHolds(t *testing.T) {
	for name, c := range map[string]cell{
		"right":        {},
		"one slot":     {oneSlot: true},
		"no checksum":  {noSum: true},
		"no flush":     {noFlush: true},
		"early flush":  {earlyFlush: true},
		"one sector":   {shareSector: true},
		"ignore flush": {ignoreFlush: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(1000) {
				err := c.try(seed)
				if err == nil {
					continue
				}
				if name == "right" {
					t.Fatalf("seed %d: %v", seed, err)
				}
				t.Logf("found by seed %d: %v", seed, err)
				return
			}
			if name != "right" {
				t.Fatal("not found in 1000 seeds")
			}
		})
	}
}
