package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// CutMode says which volatile writes a power cut keeps.
type CutMode uint8

// The cut modes.
const (
	CutDraw      CutMode = iota // one of the others but CutChosen
	CutNone                     // nothing volatile
	CutAll                      // everything
	CutAllButOne                // everything but one write
	CutOnlyOne                  // one write
	CutOnlyLast                 // the newest write
	CutTornLast                 // everything, the newest torn
	CutPrefix                   // everything up to a moment, the next one torn or lost
	CutSome                     // each write by a coin of random bias, torn by another
	CutTornAll                  // every write torn
	CutChosen                   // what CutOptions.Choose says
)

func (m CutMode) String() string {
	names := [...]string{
		"draw", "none", "all", "all but one", "only one", "only the last",
		"last torn", "prefix", "some", "all torn", "chosen",
	}
	if int(m) < len(names) {
		return names[m]
	}
	return "unknown"
}

// Fate is what becomes of a volatile write at a power cut.
type Fate uint8

// The fates.
const (
	FateLose Fate = iota
	FateKeep
	FateTear // a random part of it is kept
)

// Sector is what becomes of a sector of a torn write.
type Sector uint8

// What becomes of a sector of a torn write.
const (
	SectorOld Sector = iota // as it was
	SectorNew               // written
	SectorBad               // unreadable, with all of its physical sector; with 512-byte ones as SectorOld
)

// CutOptions narrow what a power cut may do. The zero value allows everything
// that the disk's options allow.
type CutOptions struct {
	Mode         CutMode
	InOrder      bool // keep the order of the writes' ends
	NoUnreadable bool // leave no sector unreadable
	// Choose says what becomes of the i-th write of Pending; for CutChosen.
	Choose func(i int, w Write) Fate
	// Torn says what becomes of the sectors of the i-th write of Pending, counted
	// from 0, when that is torn; nil: it is drawn.
	Torn func(i, sector int) Sector
}

// Cut says what a power cut did.
type Cut struct {
	Mode       CutMode
	Volatile   int // writes and discards that were volatile; each was kept, torn or lost
	Kept       int
	Torn       int
	Lost       int
	Unreadable int  // physical sectors that became unreadable
	Shuffled   bool // applied in another order than that of their ends
}

func (c Cut) String() string {
	order := ""
	if c.Shuffled {
		order = ", shuffled"
	}
	return fmt.Sprintf("cut %q: of %d volatile writes %d kept, %d torn, %d lost; %d sectors unreadable%s",
		c.Mode, c.Volatile, c.Kept, c.Torn, c.Lost, c.Unreadable, order)
}

// cutWeights is how often each mode is drawn.
var cutWeights = [...]CutMode{
	CutNone, CutNone, CutAll, CutAll, CutAllButOne, CutAllButOne, CutOnlyOne, CutOnlyLast,
	CutTornLast, CutTornLast, CutPrefix, CutPrefix, CutSome, CutSome, CutSome, CutTornAll,
}

// Survivor returns a disk as it may be found when the power goes now and comes
// back, and what happened. The disk itself does not change and may be open and
// busy; the survivor is not open, has nothing volatile and no faults. rng may
// be nil for CutNone and CutAll. Survivors share memory with the disk until
// they are written to.
func (d *Disk) Survivor(rng *rand.Rand, o CutOptions) (*Disk, Cut) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.durable.clone()
	cut := d.cutLocked(m, rng, o)
	return &Disk{opts: d.opts, size: d.size, durable: m, current: m}, cut
}

// PowerCut cuts the power and brings it back: the disk becomes one of its
// survivors and is not open. Its faults stay; a device that vanished is back.
func (d *Disk) PowerCut(rng *rand.Rand, o CutOptions) Cut {
	d.mu.Lock()
	defer d.mu.Unlock()
	cut := d.cutLocked(d.durable, rng, o)
	d.current = d.durable
	d.pending, d.underway, d.pendingBytes = nil, nil, 0
	d.vanished = false
	d.releaseLocked()
	return cut
}

// Kill ends the processes that have the disk open, without a power cut: what is
// in the cache stays there, each write under way arrives whole, torn or not at
// all. The disk can be opened again.
func (d *Disk) Kill(rng *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.underway
	d.underway = nil
	d.releaseLocked()
	rng.Shuffle(len(list), func(i, k int) { list[i], list[k] = list[k], list[i] })
	for _, w := range list {
		d.arrivePartlyLocked(w, rng)
	}
}

// arrivePartlyLocked ends a write of which any part reached the cache.
//
// +checklocks:d.mu
func (d *Disk) arrivePartlyLocked(w *write, rng *rand.Rand) {
	switch rng.IntN(3) {
	case 0:
		w.pieces = nil
	case 1:
		t := newTear(rng, w.pieces)
		w.pieces = slices.Clone(w.pieces)
		for i := range w.pieces {
			w.pieces[i].mask = t.keep(w.pieces[i].mask)
		}
	}
	d.refuseUnreadableLocked(w)
	d.arriveLocked(w)
}

// refuseUnreadableLocked takes from a write what it may not do, parts of
// unreadable physical sectors, and says whether there was any.
//
// +checklocks:d.mu
func (d *Disk) refuseUnreadableLocked(w *write) bool {
	refused := false
	for i, p := range w.pieces {
		if p.mask == allSectors || p.mask == 0 {
			continue
		}
		if _, bad := d.current.page(p.index); bad {
			if !refused {
				w.pieces = slices.Clone(w.pieces)
			}
			w.pieces[i].mask, refused = 0, true
		}
	}
	return refused
}

// cutLocked applies to m, the medium, what a power cut keeps.
//
// +checklocks:d.mu
func (d *Disk) cutLocked(m *medium, rng *rand.Rand, o CutOptions) Cut {
	list := d.volatileLocked()
	cut := Cut{Mode: o.Mode, Volatile: len(list)}
	if cut.Mode == CutDraw {
		cut.Mode = cutWeights[rng.IntN(len(cutWeights))]
	}
	fate := fates(cut.Mode, rng, list, o.Choose)
	at := func(i int) int { return i }
	if !o.InOrder && len(list) > 1 && rng != nil && rng.IntN(4) == 0 {
		cut.Shuffled = true
		order := rng.Perm(len(list))
		at = func(i int) int { return order[i] }
	}
	for i := range list {
		w := list[at(i)]
		switch fate(at(i)) {
		case FateLose:
			cut.Lost++
		case FateKeep:
			cut.Kept++
			for _, p := range w.pieces {
				m.apply(p)
			}
		case FateTear:
			cut.Torn++
			if o.Torn != nil {
				cut.Unreadable += d.tearAsToldLocked(m, w, func(sector int) Sector { return o.Torn(at(i), sector) })
				continue
			}
			cut.Unreadable += d.tearLocked(m, rng, o, w)
		}
	}
	return cut
}

// fates returns what a cut mode does to each of the volatile writes.
func fates(mode CutMode, rng *rand.Rand, list []*write, choose func(int, Write) Fate) func(i int) Fate {
	n := len(list)
	if n == 0 {
		return nil
	}
	one := 0
	if slices.Contains([]CutMode{CutOnlyLast, CutTornLast}, mode) {
		one = newest(list)
	} else if slices.Contains([]CutMode{CutAllButOne, CutOnlyOne, CutPrefix}, mode) {
		one = rng.IntN(n)
	}
	// ifOne gives one write another fate than all others.
	ifOne := func(that, others Fate) func(int) Fate {
		return func(i int) Fate {
			if i == one {
				return that
			}
			return others
		}
	}
	switch mode {
	case CutAll:
		return func(int) Fate { return FateKeep }
	case CutAllButOne:
		return ifOne(FateLose, FateKeep)
	case CutOnlyOne, CutOnlyLast:
		return ifOne(FateKeep, FateLose)
	case CutTornLast:
		return ifOne(FateTear, FateKeep)
	case CutTornAll:
		return func(int) Fate { return FateTear }
	case CutPrefix:
		next := [...]Fate{FateTear, FateLose}[rng.IntN(2)]
		return func(i int) Fate {
			switch {
			case i < one:
				return FateKeep
			case i == one:
				return next
			default:
				return FateLose
			}
		}
	case CutSome:
		return coins(rng)
	case CutChosen:
		return func(i int) Fate {
			w := list[i]
			return choose(i, Write{Offset: w.offset, Size: w.size, Discard: w.discard, Ended: w.end != 0})
		}
	case CutDraw, CutNone:
	}
	return func(int) Fate { return FateLose }
}

// coins keeps and tears writes each with a probability drawn once.
func coins(rng *rand.Rand) func(int) Fate {
	keep := [...]uint32{16, 128, 240, rng.Uint32N(257)}[rng.IntN(4)]
	tear := [...]uint32{0, 32, rng.Uint32N(257)}[rng.IntN(3)]
	return func(int) Fate {
		v := rng.Uint32()
		switch {
		case v&255 >= keep:
			return FateLose
		case v>>8&255 < tear:
			return FateTear
		default:
			return FateKeep
		}
	}
}

// newest returns the write that started last.
func newest(list []*write) int {
	at := 0
	for i, w := range list {
		if w.start > list[at].start {
			at = i
		}
	}
	return at
}
