package layout

import (
	"math"
	"math/bits"
	"slices"
	"unsafe"
)

// The index. A part grows when loadUsed of loadOf words are used: at 27/32 a
// search for what is not there looks at 20 words on average, five cache lines
// at most times two, and at one entry in 2^tag bits.
const (
	indexBits  = 10
	indexParts = 1 << indexBits
	partBytes  = int64(unsafe.Sizeof(part{}))
	loadUsed   = 27
	loadOf     = 32
	minWords   = 8

	hashTagBits = 22 // the hash's low bits: tags are cut from their top
	minSlotBits = 32 - hashTagBits
)

// part is a linear probing table of words: a slot number in the low slotBits,
// the tag above it, 0 for an empty place.
type part struct {
	words    []uint32
	used     uint32
	slotBits uint8
}

// hashID spreads an id over 64 bits: the top indexBits choose the part, the
// next 32 the place in it, the rest the tag.
func hashID(id ObjectID) uint64 {
	h := uint64(id) * 0x9e3779b97f4a7c15
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	h ^= h >> 29
	return h
}

// home returns the place where the search for a hash begins.
func (p *part) home(h uint64) int {
	return int(h >> hashTagBits & math.MaxUint32 * uint64(len(p.words)) >> 32)
}

// word makes the index word of a slot.
func (p *part) word(h uint64, slot uint32) uint32 {
	tag := uint32(h&(1<<hashTagBits-1)) >> (p.slotBits - minSlotBits)
	return tag<<p.slotBits | slot
}

func (p *part) slot(word uint32) uint32 { return word & (1<<p.slotBits - 1) }

// after returns the place after pos, round the end.
func (p *part) after(pos int) int {
	if pos++; pos == len(p.words) {
		return 0
	}
	return pos
}

// put stores a word in the first empty place from the home of its hash on.
// There must be one.
func (p *part) put(h uint64, word uint32) {
	pos := p.home(h)
	for p.words[pos] != 0 {
		pos = p.after(pos)
	}
	p.words[pos] = word
}

// widen makes room for slot numbers of n bits. Tags lose their lowest bits.
func (p *part) widen(n uint8) {
	old := max(p.slotBits, minSlotBits)
	for i, w := range p.words {
		if w != 0 {
			p.words[i] = w>>old>>(n-old)<<n | w&(1<<old-1)
		}
	}
	p.slotBits = n
}

// findLocked returns an id's place in its part and its slot, or slot 0.
//
// +checklocks:t.mu
func (t *Table) findLocked(id ObjectID, h uint64) (pos int, slot uint32) {
	p := &t.parts[h>>(64-indexBits)]
	if p.used == 0 {
		return 0, 0
	}
	tag := p.word(h, 0)
	mask := uint32(1)<<p.slotBits - 1
	for pos = p.home(h); p.words[pos] != 0; pos = p.after(pos) {
		if w := p.words[pos]; w&^mask == tag && t.entryLocked(w&mask).id() == id {
			return pos, w & mask
		}
	}
	return 0, 0
}

// touchLocked reads where the search for a hash will begin, so that the memory
// is on its way to the processor.
//
// +checklocks:t.mu
func (t *Table) touchLocked(h uint64) uint32 {
	p := &t.parts[h>>(64-indexBits)]
	if len(p.words) == 0 {
		return 0
	}
	return p.words[p.home(h)]
}

// indexLocked adds a slot to the index.
//
// +checklocks:t.mu
func (t *Table) indexLocked(h uint64, slot uint32) {
	p := &t.parts[h>>(64-indexBits)]
	if n := max(uint8(bits.Len32(slot)), minSlotBits); n > p.slotBits {
		p.widen(n)
	}
	if uint64(p.used+1)*loadOf > uint64(len(p.words))*loadUsed {
		t.growLocked(p, max(len(p.words)+len(p.words)/4, minWords))
	}
	p.put(h, p.word(h, slot))
	p.used++
}

// unindexLocked empties a place and moves what follows it back, so that no
// search ends too early at the hole.
//
// +checklocks:t.mu
func (t *Table) unindexLocked(h uint64, hole int) {
	p := &t.parts[h>>(64-indexBits)]
	n := len(p.words)
	for pos := p.after(hole); p.words[pos] != 0; pos = p.after(pos) {
		home := p.home(hashID(t.entryLocked(p.slot(p.words[pos])).id()))
		// It may move if the hole is not before its home, seen from there.
		if (pos-home+n)%n >= (pos-hole+n)%n {
			p.words[hole] = p.words[pos]
			hole = pos
		}
	}
	p.words[hole] = 0
	p.used--
}

// growLocked gives a part at least n words.
//
// +checklocks:t.mu
func (t *Table) growLocked(p *part, n int) {
	old := p.words
	p.words = slices.Grow([]uint32(nil), n)
	p.words = p.words[:cap(p.words)] // the allocator's own rounding is used too
	clear(p.words)
	t.growths.Add(1)
	for _, w := range old {
		if w != 0 {
			h := hashID(t.entryLocked(p.slot(w)).id())
			p.put(h, w)
		}
	}
}

// reserveIndexLocked makes every part large enough for its share of n objects.
//
// +checklocks:t.mu
func (t *Table) reserveIndexLocked(n int) {
	share := float64(n) / indexParts
	share += 6 * math.Sqrt(share) // far above what chance adds to any part
	words := int(share*loadOf/loadUsed) + minWords
	for i := range t.parts {
		if p := &t.parts[i]; len(p.words) < words {
			t.growLocked(p, words)
		}
	}
}
