package check_test

import (
	"io"
	"math/rand/v2"
	"testing"

	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
)

// redundant returns where the superblock copies and the pages of logs lie, among
// the pages that are used.
func redundant(t testing.TB, d *devsim.Disk, used []int64) []int64 {
	t.Helper()
	places := []int64{0, omf.SecondCopyOffset, d.Size() - page}
	for _, off := range used {
		if le.Uint32(readPage(t, d, off)) == mlog.Magic {
			places = append(places, off)
		}
	}
	return places
}

// Whatever happens to superblocks and logs, a repair makes nothing worse: no
// panic, no problem that was not there, the same objects with the same data, and
// nothing written but what it named.
//
// proves S43 S45
func FuzzRepair(f *testing.F) {
	disk, used := newSmall(f)
	places := redundant(f, disk, used)
	rng := rand.New(rand.NewPCG(6, 7))
	for what := range byte(6) {
		for range 4 {
			b := make([]byte, 24)
			_, err := io.ReadFull(dice{rng}, b)
			do(f, err)
			b[0], b[12] = what, byte(rng.IntN(6))
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		d := disk.Clone()
		damage(d, places, program[:min(len(program), 120)])
		tryRepair(t, d)
	})
}

// The same with random damage.
//
// proves S45
func TestRepairRandom(t *testing.T) {
	disk, used := newSmall(t)
	places := redundant(t, disk, used)
	mended := uint64(0)
	for seed := range *agreeSeeds / 2 {
		rng := rand.New(rand.NewPCG(seed, 12))
		program := make([]byte, 12*(1+rng.IntN(4)))
		_, err := io.ReadFull(dice{rng}, program)
		do(t, err)
		among := places
		if rng.IntN(2) == 0 {
			among = places[:3]
		}
		d := disk.Clone()
		damage(d, among, program)
		if _, wrote := tryRepair(t, d); wrote {
			mended++
		}
		if t.Failed() {
			t.Fatalf("seed %d: %x", seed, program)
		}
	}
	if mended == 0 || mended == *agreeSeeds/2 {
		t.Fatalf("%d of %d were mended", mended, *agreeSeeds/2)
	}
	t.Logf("%d of %d were mended", mended, *agreeSeeds/2)
}

// The same with several drives, of which some are behind.
//
// proves S3 S45
func TestRepairRandomFleet(t *testing.T) {
	if raced {
		t.Skip("what runs side by side in it is raced by TestBroken and TestAgreement")
	}
	plain := newFleet(t)
	mended := 0
	for seed := range *agreeSeeds / 4 {
		rng := rand.New(rand.NewPCG(seed, 13))
		f := *plain
		f.disks = nil
		for _, d := range plain.disks {
			f.disks = append(f.disks, d.Clone())
		}
		for i := 1; i < 3; i++ {
			if m := rng.IntN(5); m < len(f.had) {
				f.lag(t, i, m)
			}
		}
		for range rng.IntN(4) {
			disk, i := rng.IntN(3), rng.IntN(omf.Copies)
			switch rng.IntN(4) {
			case 0:
				flip(f.disks[disk], f.place(i)+rng.Int64N(page))
			case 1:
				write(t, f.disks[disk], make([]byte, page), f.place(i))
			case 2:
				f.disks[disk].SetUnreadable(f.place(i), page)
			case 3:
				other := f.disks[rng.IntN(3)]
				b := make([]byte, page)
				if _, err := other.ReadAt(b, f.place(rng.IntN(omf.Copies))); err == nil {
					write(t, f.disks[disk], b, f.place(i))
				}
			}
		}
		if _, wrote := tryRepair(t, f.disks...); wrote {
			mended++
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d were mended", mended)
}
