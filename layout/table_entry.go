package layout

import "unsafe"

// Chunks of entries.
const (
	chunkShift   = 11
	chunkEntries = 1 << chunkShift
	chunkBytes   = int64(unsafe.Sizeof(chunk{}))
	maxSlot      = 1<<32 - 1
)

// entry is one object, packed. Bits from the low end of each word:
//
//	word  narrow                                             wide           free
//	0     counter 47, kind-1 1, owner 16                     0              0
//	1     birth 48, created>>32 10, sums 5, wide 1           bit 63         0
//	2     start 36, blocks 20, drive 8                       id             next free slot
//	3     written 31, capacity 31, 0                         side index     0
//	4     tag 64                                             0              0
//	5     sum 32, created 32                                 0              0
//
// sum is the only checksum, or where in the arena the several are; of an mlog,
// which has none, the generation. A counter of 0 does not fit: it tells a free
// entry from a narrow one.
type entry [6]uint64

type chunk [chunkEntries]entry

// The size is what the table's memory is planned with.
var _ [0]struct{} = [unsafe.Sizeof(entry{}) - 48]struct{}{}

const (
	counterBits  = 47
	ownerBits    = 16
	birthBits    = 48
	createdBits  = 42
	sumsShift    = 58
	wideBit      = 1 << 63
	startBits    = 36
	blocksBits   = 20
	driveBits    = 8
	lengthBits   = 31
	ownerShift   = 48
	kindShift    = 47
	createdShift = 48
)

func (e *entry) isFree() bool  { return e[0] == 0 && e[1] == 0 }
func (e *entry) isWide() bool  { return e[1]&wideBit != 0 }
func (e *entry) next() uint32  { return uint32(e[2]) }
func (e *entry) side() uint32  { return uint32(e[3]) }
func (e *entry) sumCount() int { return int(e[1] >> sumsShift & 31) }

// link makes a forgotten entry part of the free list.
func (e *entry) link(next uint32) { *e = entry{2: uint64(next)} }

// id returns the entry's object id. The entry must not be free.
func (e *entry) id() ObjectID {
	if e.isWide() {
		return ObjectID(e[2])
	}
	return NewObjectID(Kind(e[0]>>kindShift&1)+1, e[0]&(1<<counterBits-1))
}

// fits says whether v needs at most bits.
func fits(v uint64, bits uint) bool { return v>>bits == 0 }

// isNarrow says whether an entry can hold the object itself.
func isNarrow(o *Object) bool {
	if !o.ID.Valid() || o.Partner != 0 {
		return false
	}
	if o.ID.Kind() == KindMlog && (len(o.Sums) != 0 || !fits(o.Generation, 32)) {
		return false
	}
	if o.ID.Kind() == KindMblock && o.Generation != 0 {
		return false
	}
	return fits(o.ID.Counter(), counterBits) && fits(uint64(o.Owner), ownerBits) &&
		fits(uint64(o.Birth), birthBits) && fits(o.Created, createdBits) &&
		fits(o.Extent.Start, startBits) && fits(uint64(o.Extent.Blocks), blocksBits) &&
		fits(uint64(o.Extent.Drive), driveBits) &&
		fits(o.Written, lengthBits) && fits(o.Capacity, lengthBits)
}

// storeLocked fills a forgotten or new entry and counts the object in.
//
// +checklocks:t.mu
func (t *Table) storeLocked(e *entry, o *Object) {
	was := t.wide.allocs + t.sums.allocs
	t.fillLocked(e, o)
	if n := t.wide.allocs + t.sums.allocs - was; n > 0 {
		t.growths.Add(n)
	}
}

// +checklocks:t.mu
func (t *Table) fillLocked(e *entry, o *Object) {
	t.counts[countAs(o.ID)]++
	t.stored += int64(o.Written)
	if !isNarrow(o) {
		*e = entry{1: wideBit, 2: uint64(o.ID), 3: uint64(t.wide.put(o, t.sums.put(o.Sums)))}
		return
	}
	var sum uint32
	switch {
	case o.ID.Kind() == KindMlog:
		sum = uint32(o.Generation)
	case len(o.Sums) == 1:
		sum = o.Sums[0]
	default:
		sum = t.sums.put(o.Sums)
	}
	*e = entry{
		o.ID.Counter() | uint64(o.ID.Kind()-1)<<kindShift | uint64(o.Owner)<<ownerShift,
		uint64(o.Birth) | o.Created>>32<<createdShift | uint64(len(o.Sums))<<sumsShift,
		o.Extent.Start | uint64(o.Extent.Blocks)<<startBits | uint64(o.Extent.Drive)<<(startBits+blocksBits),
		o.Written | o.Capacity<<lengthBits,
		o.Tag,
		uint64(sum) | o.Created<<32,
	}
}

// loadLocked returns the object of an entry that is not free. A single checksum
// is put into one, which the object's Sums then refer to.
//
// +checklocks:t.mu
func (t *Table) loadLocked(e *entry, one *[1]uint32) Object {
	if e.isWide() {
		w := t.wide.at(e.side())
		o := w.object()
		o.Sums = t.sums.get(w.sums, int(w.sumCount))
		return o
	}
	o := Object{
		ID:    e.id(),
		Birth: BirthStamp(e[1] & (1<<birthBits - 1)),
		Extent: Extent{
			Drive:  uint16(e[2] >> (startBits + blocksBits)),
			Start:  e[2] & (1<<startBits - 1),
			Blocks: uint32(e[2] >> startBits & (1<<blocksBits - 1)),
		},
		Written:  e[3] & (1<<lengthBits - 1),
		Capacity: e[3] >> lengthBits & (1<<lengthBits - 1),
		Owner:    uint32(e[0] >> ownerShift),
		Tag:      e[4],
		Created:  e[5]>>32 | e[1]>>createdShift&(1<<(createdBits-32)-1)<<32,
	}
	switch n := e.sumCount(); {
	case o.ID.Kind() == KindMlog:
		o.Generation = uint64(uint32(e[5]))
	case n == 1:
		one[0] = uint32(e[5])
		o.Sums = one[:]
	default:
		o.Sums = t.sums.get(uint32(e[5]), n)
	}
	return o
}

// forgetLocked counts the entry's object out and frees what it has outside the
// entry. The entry must then be stored to or linked into the free list.
//
// +checklocks:t.mu
func (t *Table) forgetLocked(e *entry) {
	t.counts[countAs(e.id())]--
	if e.isWide() {
		w := t.wide.at(e.side())
		t.stored -= int64(w.written)
		t.sums.drop(w.sums, int(w.sumCount))
		t.wide.drop(e.side())
		return
	}
	t.stored -= int64(e[3] & (1<<lengthBits - 1))
	if n := e.sumCount(); n > 1 {
		t.sums.drop(uint32(e[5]), n)
	}
}

// countAs returns where in Table.counts an id is counted.
func countAs(id ObjectID) Kind {
	if k := id.Kind(); k.Valid() {
		return k
	}
	return 0
}

// +checklocks:t.mu
func (t *Table) entryLocked(slot uint32) *entry {
	return &t.chunks[slot>>chunkShift][slot&(chunkEntries-1)]
}
