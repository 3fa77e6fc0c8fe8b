package layout

import (
	"fmt"
	"sync/atomic"

	"github.com/mpool-go/mpool/sched"
)

// Table holds every committed object of a pool. Safe for concurrent use; each
// call takes one short lock of rank [sched.RankLayout].
//
// # Shape
//
// An object is an entry of 48 bytes in a chunk of 2,048; chunks are never moved
// and hold no pointers, so neither growth nor the garbage collector copies or
// looks into them. An entry's number (its slot) is stable for the entry's life,
// which is what [Table.Scan] walks by. Slots of deleted objects are used again,
// last freed first; memory of chunks is not given back.
//
// What does not fit the narrow fields of an entry (the partner of an MDC's log,
// a capacity of 2 GiB or more, see entry.go) moves, whole, to a side array. All
// but the first inline checksum move to arenas by length; both have free lists.
//
// The index is 1,024 parts by the top bits of an id's hash, each a linear
// probing table of 32-bit words: a slot number, and above it as many hash bits
// as are left, so that a probe rarely looks at the wrong entry. A part grows by
// itself, by a quarter: no insert ever waits for more than one part's rehash.
//
// # Memory
//
// 48 bytes an object and 4.7 to 6 of index, whatever the count. Parts grow at
// about the same counts, because hashes spread evenly: the index is largest, for
// what it holds, when all parts have just grown. The former arrays of parts that
// grew are garbage until the next collection.
type Table struct {
	mu sched.Mutex
	// +checklocks:mu
	chunks []*chunk
	// +checklocks:mu
	next uint32 // the lowest slot never used; slot 0 is never used
	// +checklocks:mu
	free uint32 // the slot freed last, or 0; linked through the entries
	// +checklocks:mu
	parts [indexParts]part
	// +checklocks:mu
	wide wideStore
	// +checklocks:mu
	sums sumStore
	// +checklocks:mu
	counts [KindMlog + 1]int // by kind; unknown kinds under 0
	// +checklocks:mu
	stored int64 // sum of Written
	// +checklocks:mu
	touched uint32 // keeps UpsertAll's early reads from being optimized away

	growths atomic.Uint64 // changes under mu
}

// NewTable makes an empty table.
func NewTable(s *sched.Sched) *Table {
	t := &Table{next: 1}
	t.mu.Init(s, sched.RankLayout)
	return t
}

// Reserve sizes the index for n inserts to come, so that none of them makes it
// grow. It works through the whole index under the lock: for activation, before
// anybody else uses the table.
func (t *Table) Reserve(n int) {
	if n <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reserveIndexLocked(t.lenLocked() + n)
	chunks := (int(t.next) + n + chunkEntries - 1) / chunkEntries
	if chunks > cap(t.chunks) {
		t.chunks = append(make([]*chunk, 0, chunks), t.chunks...)
		t.growths.Add(1)
	}
}

// Insert adds an object and says true, or false if the table has its id. It
// panics when the object has more than MaxInlineSums checksums.
func (t *Table) Insert(o Object) bool {
	assertSums(&o)
	t.mu.Lock()
	defer t.mu.Unlock()
	h := hashID(o.ID)
	if _, slot := t.findLocked(o.ID, h); slot != 0 {
		return false
	}
	t.addLocked(&o, h)
	return true
}

// Upsert adds an object or replaces the one of its id. It panics when the
// object has more than MaxInlineSums checksums.
func (t *Table) Upsert(o Object) {
	assertSums(&o)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.upsertLocked(&o, hashID(o.ID))
}

// UpsertAll is Upsert of objects, one after another. For activation: where every
// single one would wait for memory, here many wait at once. It holds the lock
// throughout.
func (t *Table) UpsertAll(objects []Object) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var hashes [32]uint64
	for len(objects) > 0 {
		group := objects[:min(len(objects), len(hashes))]
		objects = objects[len(group):]
		var touched uint32
		for i := range group {
			hashes[i] = hashID(group[i].ID)
			touched |= t.touchLocked(hashes[i])
		}
		for i := range group {
			assertSums(&group[i])
			t.upsertLocked(&group[i], hashes[i])
		}
		t.touched = touched
	}
}

// +checklocks:t.mu
func (t *Table) upsertLocked(o *Object, h uint64) {
	if _, slot := t.findLocked(o.ID, h); slot != 0 {
		e := t.entryLocked(slot)
		t.forgetLocked(e)
		t.storeLocked(e, o)
		return
	}
	t.addLocked(o, h)
}

// Lookup returns the object of an id. Its Sums are the caller's own copy; one
// checksum costs no allocation where the caller keeps the object on its stack.
func (t *Table) Lookup(id ObjectID) (Object, bool) {
	// Small enough to be inlined: one then lives on the caller's stack.
	var one [1]uint32
	return t.lookup(id, &one)
}

func (t *Table) lookup(id ObjectID, one *[1]uint32) (o Object, ok bool) {
	t.mu.Lock()
	if _, slot := t.findLocked(id, hashID(id)); slot != 0 {
		o, ok = t.loadLocked(t.entryLocked(slot), one), true
	}
	t.mu.Unlock()
	return o, ok
}

// Update calls f with the object of an id and keeps what f made of it; it
// returns false, without calling f, when the table does not have the id. f runs
// under the table's lock: it must not block, lock or call the table. It may
// change everything but the id.
func (t *Table) Update(id ObjectID, f func(*Object)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, slot := t.findLocked(id, hashID(id))
	if slot == 0 {
		return false
	}
	e := t.entryLocked(slot)
	var one [1]uint32
	o := t.loadLocked(e, &one)
	f(&o)
	o.ID = id
	assertSums(&o)
	t.forgetLocked(e)
	t.storeLocked(e, &o)
	return true
}

// Delete removes the object of an id and returns it.
func (t *Table) Delete(id ObjectID) (Object, bool) {
	var one [1]uint32
	return t.remove(id, &one)
}

func (t *Table) remove(id ObjectID, one *[1]uint32) (Object, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := hashID(id)
	pos, slot := t.findLocked(id, h)
	if slot == 0 {
		return Object{}, false
	}
	t.unindexLocked(h, pos)
	e := t.entryLocked(slot)
	o := t.loadLocked(e, one)
	t.forgetLocked(e)
	e.link(t.free)
	t.free = slot
	return o, true
}

// Len returns how many objects there are.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lenLocked()
}

// +checklocks:t.mu
func (t *Table) lenLocked() int {
	n := 0
	for _, c := range t.counts {
		n += c
	}
	return n
}

// Count returns how many objects of a kind there are.
func (t *Table) Count(kind Kind) int {
	if !kind.Valid() {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts[kind]
}

// Stored returns the sum of all objects' Written, in bytes.
func (t *Table) Stored() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stored
}

// Bytes returns the memory that the table has allocated: for entries and index,
// and for inline checksums beyond each object's first.
func (t *Table) Bytes() (table, sums int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	table = int64(len(t.chunks))*chunkBytes + int64(cap(t.chunks))*8 + t.wide.bytes()
	for i := range t.parts {
		table += int64(len(t.parts[i].words)) * 4
	}
	return table + indexParts*partBytes, t.sums.bytes()
}

// Growths returns how often the table has allocated memory: as long as that does not
// change, Bytes does not. It takes no lock.
func (t *Table) Growths() uint64 { return t.growths.Load() }

// The most slots that one hold of the lock walks over, and the most objects it
// copies out.
const (
	scanSlots  = 4096
	scanObject = 32
)

// Scan calls f for at most limit objects, from a cursor on: 0 at first, then
// what the last call returned, until it returns 0. Every object that is in the
// table throughout is visited exactly once; one that comes, goes or changes
// meanwhile is visited as it was at some moment, or not. f is called without
// the lock and may call the table. In no order that means anything.
func (t *Table) Scan(cursor uint64, limit int, f func(Object)) (next uint64) {
	var batch [scanObject]Object
	for limit > 0 {
		// f may keep what it gets: the single checksums need new memory.
		ones := make([][1]uint32, scanObject)
		n, at := t.copyOut(batch[:min(limit, scanObject)], ones, cursor)
		for i := range batch[:n] {
			f(batch[i])
		}
		if at == 0 {
			return 0
		}
		cursor, limit = at, limit-n
	}
	return cursor
}

// copyOut copies objects from the slot cursor on, and returns how many and the
// slot after the last one looked at, or 0 at the end. Single checksums are put
// into ones.
func (t *Table) copyOut(batch []Object, ones [][1]uint32, cursor uint64) (n int, next uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := max(cursor, 1)
	end := min(slot+scanSlots, uint64(t.next))
	for ; slot < end && n < len(batch); slot++ {
		e := t.entryLocked(uint32(slot))
		if e.isFree() {
			continue
		}
		batch[n] = t.loadLocked(e, &ones[n])
		n++
	}
	if slot >= uint64(t.next) {
		return n, 0
	}
	return n, slot
}

// addLocked stores an object that the index does not have.
//
// +checklocks:t.mu
func (t *Table) addLocked(o *Object, h uint64) {
	slot := t.free
	if slot != 0 {
		t.free = t.entryLocked(slot).next()
	} else {
		slot = t.next
		if slot == maxSlot {
			panic("layout: the table holds as many objects as 32 bits can count")
		}
		t.next++
		if int(slot>>chunkShift) == len(t.chunks) {
			t.chunks = append(t.chunks, new(chunk))
			t.growths.Add(1)
		}
	}
	t.storeLocked(t.entryLocked(slot), o)
	t.indexLocked(h, slot)
}

func assertSums(o *Object) {
	if len(o.Sums) > MaxInlineSums {
		panic(fmt.Sprintf("layout: object %v has %d inline checksums, at most %d fit", o.ID, len(o.Sums), MaxInlineSums))
	}
}
