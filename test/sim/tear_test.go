package sim

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	devsim "github.com/mpool-go/mpool/bdev/sim"
)

const (
	// tearAll is up to how many sectors of a write all subsets are tried.
	tearAll = 12
	// tearSome is how many tears of a write are tried when not all are.
	tearSome = 12
	// tearMany is how many are drawn of a write with more sectors than tearAll.
	tearMany = 512
)

// torn is a write that a power cut tears: the last one of a disk that ended.
type torn struct {
	r       *play
	disk    int
	at      int // of the disk's volatile writes
	w       devsim.Write
	keep    bool  // the other writes, all or none
	sectors []int // of the write; those that it changes
}

// survivor makes the media, of which the write's sectors become what is told.
func (x *torn) survivor(told func(sector int) devsim.Sector) devsim.Rack {
	after := make(devsim.Rack, len(x.r.disks))
	for i, d := range x.r.disks {
		after[i], _ = d.Survivor(nil, devsim.CutOptions{
			Mode: devsim.CutChosen,
			Choose: func(k int, _ devsim.Write) devsim.Fate {
				switch {
				case i == x.disk && k == x.at:
					return devsim.FateTear
				case x.keep:
					return devsim.FateKeep
				}
				return devsim.FateLose
			},
			Torn: func(_, sector int) devsim.Sector { return told(sector) },
		})
	}
	return after
}

// changed returns which sectors of the write differ from what is beneath it.
func (x *torn) changed() (sectors []int, err error) {
	const size = 512
	var content [2][]byte
	for i, s := range []devsim.Sector{devsim.SectorOld, devsim.SectorNew} {
		content[i] = make([]byte, x.w.Size)
		if _, err := x.survivor(func(int) devsim.Sector { return s })[x.disk].ReadAt(content[i], x.w.Offset); err != nil {
			return nil, err
		}
	}
	for k := 0; int64(k)*size < x.w.Size; k++ {
		if !bytes.Equal(content[0][k*size:(k+1)*size], content[1][k*size:(k+1)*size]) {
			sectors = append(sectors, k)
		}
	}
	return sectors, nil
}

// tears returns what may become of the sectors that the write changes: each of the
// subsets that are written, of many sectors those that begin or end with the write,
// each one alone, all but each one, and some by chance.
func (x *torn) tears(rng *rand.Rand, all bool) (list []func(sector int) devsim.Sector) {
	n := len(x.sectors)
	add := func(written func(k int) bool) {
		became := make(map[int]devsim.Sector, n)
		for k, s := range x.sectors {
			if written(k) {
				became[s] = devsim.SectorNew
			}
		}
		list = append(list, func(sector int) devsim.Sector { return became[sector] })
	}
	if n <= tearAll {
		for mask := range 1 << n {
			add(func(k int) bool { return mask>>k&1 != 0 })
		}
	} else {
		for at := range n + 1 {
			add(func(k int) bool { return k < at })
			add(func(k int) bool { return k >= at })
			add(func(k int) bool { return k == at })
			add(func(k int) bool { return k != at })
		}
		for range tearMany {
			add(func(int) bool { return rng.IntN(2) == 0 })
		}
	}
	list = append(list, x.unreadable(rng)...)
	if !all {
		rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		list = list[:min(len(list), tearSome)]
	}
	return list
}

// unreadable returns what may become of physical sectors of 4096 bytes: each is as
// it was, written, or cannot be read.
func (x *torn) unreadable(rng *rand.Rand) (list []func(sector int) devsim.Sector) {
	const inPage = 8
	if x.r.disks[x.disk].Options().PhysicalSector != 4096 || x.w.Offset%4096 != 0 || len(x.sectors) == 0 {
		return nil
	}
	pages := int(x.w.Size+4095) / 4096
	add := func(of func(page int) devsim.Sector) {
		became := make([]devsim.Sector, pages)
		for i := range became {
			became[i] = of(i)
		}
		list = append(list, func(sector int) devsim.Sector { return became[sector/inPage] })
	}
	if pages > 4 {
		for range tearMany / 4 {
			add(func(int) devsim.Sector { return devsim.Sector(rng.IntN(3)) })
		}
		return list
	}
	total := 1
	for range pages {
		total *= 3
	}
	for n := range total {
		add(func(page int) devsim.Sector {
			m := n
			for range page {
				m /= 3
			}
			return devsim.Sector(m % 3)
		})
	}
	return list
}

// tear plays a scenario to the end of a write, and tears that.
func (sc *scenario) tear(at int) (states int, err error) {
	r, err := sc.cutAt(at)
	if err != nil {
		return 0, err
	}
	rng := rand.New(rand.NewPCG(uint64(at), 4))
	for disk, d := range r.disks {
		x := &torn{r: r, disk: disk, at: -1}
		for i, w := range d.Pending() {
			if w.Ended {
				x.at, x.w = i, w
			}
		}
		if x.at < 0 || x.w.Discard {
			continue
		}
		for _, x.keep = range []bool{true, false} {
			if x.sectors, err = x.changed(); err != nil {
				return states, err
			}
			for i, told := range x.tears(rng, *allFlag) {
				states++
				if err := r.judge(x.survivor(told)); err != nil {
					became := make([]devsim.Sector, x.w.Size/512)
					for s := range became {
						became[s] = told(s)
					}
					return states, fmt.Errorf("tear %d of %+v on disk %d, its sectors %v, others kept %v: %w", i, x.w, disk, became, x.keep, err)
				}
			}
		}
	}
	return states, nil
}

// The power goes at the end of each write of each call and tears it: every subset of
// its sectors is kept, and physical sectors become unreadable. By default a part of
// that; all of it with -sim.all.
//
// proves S2 S5 S12 S21 S22 S24 S26
func TestEachWriteTorn(t *testing.T) {
	var list []trial
	for _, sc := range mustPrepare(t) {
		if sc.apart {
			continue
		}
		for _, at := range sc.writes {
			list = append(list, trial{fmt.Sprintf("%s, boundary %d", sc.name, at), func() (int, error) { return sc.tear(at) }})
		}
	}
	tryAll(t, list)
}
