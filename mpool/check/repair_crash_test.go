package check_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool/check"
)

var cutSeeds = flag.Int("check.cuts", 2, "how many media TestRepairCut looks at for each moment of a cut")

// cutter stops the machine at one start or end of a write or flush, of all those
// of the disks that are opened with it.
type cutter struct {
	at, seen int
}

func (c *cutter) onIO(b devsim.Boundary) bool {
	if b.Op.Code != bdev.OpRead {
		c.seen++
	}
	return c.at > 0 && c.seen >= c.at
}

// volatile returns a copy of a disk with a write cache, of which large physical
// sectors may become unreadable when they are torn.
func volatile(t *testing.T, d *devsim.Disk, physical int) *devsim.Disk {
	t.Helper()
	n := devsim.NewDisk(d.Size(), devsim.DiskOptions{PhysicalSector: physical})
	b, zero := make([]byte, page), make([]byte, page)
	for off := int64(0); off < d.Size(); off += page {
		if _, err := d.ReadAt(b, off); err != nil {
			n.SetUnreadable(off, page)
		} else if string(b) != string(zero) {
			write(t, n, b, off)
		}
	}
	return n
}

// A repair that is cut off at any write or flush leaves nothing that is worse
// than it was: no new problem, the same pool for activation, and a second repair
// ends as the first would have.
//
// proves S2 S45
func TestRepairCut(t *testing.T) {
	if raced {
		t.Skip("one task at a time: there is nothing to race, and it takes minutes")
	}
	plain := newFixture(t)
	moments := 0
	for _, b := range slices.Concat(superblockBreakages(), logBreakages(), repairBreakages()) {
		f := *plain
		f.disk = f.disk.Clone()
		b.do(t, &f)
		moments += cutRepair(t, b.name, f.disk)
	}
	for _, b := range fleetBreakages() {
		f := newFleet(t)
		b.do(t, f)
		moments += cutRepair(t, b.name, f.disks...)
	}
	if moments < 200 {
		t.Fatalf("%d moments", moments)
	}
	t.Logf("%d moments", moments)
}

// cutRepair cuts a repair off at all moments, and returns how many there are.
func cutRepair(t *testing.T, name string, disks ...*devsim.Disk) int {
	t.Helper()
	before := codeSet(glance(t, disks...))
	wasGood, wasThere := contents(disks...)
	whole := make([]*devsim.Disk, len(disks))
	for i := range disks {
		whole[i] = disks[i].Clone()
	}
	end, list := repairWith(t, false, whole...)
	if len(list) == 0 {
		return 0
	}
	var base [2][]*devsim.Disk
	for _, d := range disks {
		base[0], base[1] = append(base[0], volatile(t, d, 512)), append(base[1], volatile(t, d, page))
	}
	moments := 0
	for at := 1; ; at++ {
		for seed := range *cutSeeds {
			rng, mode := rand.New(rand.NewPCG(uint64(seed), uint64(at))), devsim.CutDraw
			if seed < 2 {
				mode = devsim.CutTornAll
			}
			c := &cutter{at: at}
			after := make([]*devsim.Disk, len(disks))
			for i := range disks {
				after[i] = base[(at+seed)%2][i].Clone()
			}
			_, err := check.Repair(bg, names(len(after)), check.Options{
				OpenTarget: targets(devsim.OpenOptions{OnIO: c.onIO}, new([]written), after...),
			})
			if c.seen < at {
				do(t, err)
				return moments
			}
			moments++
			for i := range after {
				after[i], _ = after[i].Survivor(rng, devsim.CutOptions{Mode: mode})
			}
			if err := afterCut(t, after, before, wasGood, wasThere, &end); err != nil {
				t.Fatalf("%s: cut at %d, seed %d: %v", name, at, seed, err)
			}
		}
	}
}

// afterCut looks at what a cut left.
func afterCut(t *testing.T, disks []*devsim.Disk, before map[string]bool, wasGood bool, wasThere string, end *check.Report) error {
	t.Helper()
	for code := range codeSet(glance(t, disks...)) {
		// Half of a pair of slots that was written is no loss.
		if !before[code] && code != check.LogCopy {
			return fmt.Errorf("there is %s now; before: %v", code, before)
		}
	}
	if good, there := contents(disks...); wasGood && (!good || there != wasThere) {
		return fmt.Errorf("the pool was\n%s and is\n%s", wasThere, there)
	}
	r, _ := repairWith(t, false, disks...)
	if codes(left(r.Problems)) != codes(left(end.Problems)) || codes(left(r.Notes)) != codes(left(end.Notes)) {
		return errors.New("a second repair leaves " + codes(left(r.Problems)) + " and " + codes(left(r.Notes)))
	}
	return nil
}

// glance checks all but the data of mblocks, which contents reads.
func glance(t *testing.T, disks ...*devsim.Disk) check.Report {
	t.Helper()
	r, err := check.Run(bg, names(len(disks)), check.Options{Open: opener(disks...)})
	do(t, err)
	return r
}

// codeSet returns the codes of problems and notes. Those of superblock copies
// are of one kind: a write that is cut off may make an older one a damaged one.
func codeSet(r check.Report) map[string]bool {
	set := make(map[string]bool)
	for _, p := range slices.Concat(r.Problems, r.Notes) {
		code := p.Code
		switch code {
		case check.SuperblockMissing, check.SuperblockOlder, check.SuperblockDiffers, check.SuperblockMisplaced:
			code = check.SuperblockDamaged
		}
		set[strings.TrimSpace(code)] = true
	}
	return set
}
