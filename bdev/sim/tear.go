package sim

import "math/rand/v2"

// tearLocked applies a part of a write to the medium and returns how many
// physical sectors it left unreadable.
//
// +checklocks:d.mu
func (d *Disk) tearLocked(m *medium, rng *rand.Rand, o CutOptions, w *write) int {
	unreadable := 0
	t := newTear(rng, w.pieces)
	for _, p := range w.pieces {
		asked := p.mask
		p.mask = t.keep(asked)
		m.apply(p)
		if p.mask == asked || o.NoUnreadable || w.discard || d.opts.PhysicalSector != pageSize {
			continue
		}
		// A sector that was half written is worse off than one that was not
		// reached.
		odds := 8
		if p.mask != 0 {
			odds = 2
		}
		if rng.IntN(odds) == 0 {
			m.setBad(p.index)
			unreadable++
		}
	}
	return unreadable
}

// tearAsToldLocked is tearLocked where it is said what becomes of each sector.
//
// +checklocks:d.mu
func (d *Disk) tearAsToldLocked(m *medium, w *write, told func(sector int) Sector) int {
	unreadable, n := 0, 0
	for _, p := range w.pieces {
		asked, bad := p.mask, false
		p.mask = 0
		for s := range pageSectors {
			if asked>>s&1 == 0 {
				continue
			}
			switch told(n) {
			case SectorNew:
				p.mask |= 1 << s
			case SectorBad:
				bad = d.opts.PhysicalSector == pageSize
			case SectorOld:
			}
			n++
		}
		m.apply(p)
		if bad {
			m.setBad(p.index)
			unreadable++
		}
	}
	return unreadable
}

// tear decides, sector by sector, what is kept of a torn write. It is asked for
// the write's sectors in their order.
type tear struct {
	rng      *rand.Rand
	pattern  int
	next, at int // number of the next sector, and the one at which the write tears
}

// The patterns of tearing.
const (
	tearTail   = iota // the end is missing
	tearHead          // the beginning is missing
	tearHole          // one sector is missing
	tearIsland        // one sector is all there is
	tearRandom        // each sector by a coin
	tearPatterns
)

func newTear(rng *rand.Rand, pieces []piece) *tear {
	sectors := 0
	for _, p := range pieces {
		sectors += p.mask.count()
	}
	t := &tear{rng: rng, pattern: rng.IntN(tearPatterns)}
	if sectors > 0 {
		t.at = rng.IntN(sectors)
	}
	return t
}

// keep returns which of the sectors are kept.
func (t *tear) keep(asked sectorMask) sectorMask {
	var kept sectorMask
	for s := range pageSectors {
		if asked>>s&1 == 0 {
			continue
		}
		if t.keepNext() {
			kept |= 1 << s
		}
	}
	return kept
}

// keepNext says whether the next sector is kept.
func (t *tear) keepNext() bool {
	next := t.next
	t.next++
	switch t.pattern {
	case tearTail:
		return next < t.at
	case tearHead:
		return next > t.at
	case tearHole:
		return next != t.at
	case tearIsland:
		return next == t.at
	default:
		return t.rng.Uint32()&1 == 0
	}
}
