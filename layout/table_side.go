package layout

import "unsafe"

// wide is an object that does not fit an entry, but for its checksums, which
// are in the arenas whatever their number.
type wide struct {
	id         ObjectID
	birth      BirthStamp
	start      uint64
	written    uint64
	capacity   uint64
	tag        uint64
	created    uint64
	generation uint64
	partner    ObjectID
	blocks     uint32
	owner      uint32
	sums       uint32 // where in the arena
	drive      uint16
	sumCount   uint8
}

const wideChunk = 128

// wideStore is a chunked array with a free list through the field blocks.
type wideStore struct {
	chunks []*[wideChunk]wide
	next   uint32 // the lowest place never used
	free   uint32 // the place freed last plus 1, or 0
	allocs uint64 // of chunks
}

func (s *wideStore) at(i uint32) *wide { return &s.chunks[i/wideChunk][i%wideChunk] }

func (s *wideStore) put(o *Object, sums uint32) uint32 {
	i := s.free - 1
	if s.free != 0 {
		s.free = s.at(i).blocks
	} else {
		i = s.next
		s.next++
		if int(i/wideChunk) == len(s.chunks) {
			s.chunks = append(s.chunks, new([wideChunk]wide))
			s.allocs++
		}
	}
	*s.at(i) = wide{
		id: o.ID, birth: o.Birth, start: o.Extent.Start, written: o.Written, capacity: o.Capacity,
		tag: o.Tag, created: o.Created, generation: o.Generation, partner: o.Partner,
		blocks: o.Extent.Blocks, owner: o.Owner, sums: sums, drive: o.Extent.Drive, sumCount: uint8(len(o.Sums)),
	}
	return i
}

func (s *wideStore) drop(i uint32) {
	*s.at(i) = wide{blocks: s.free}
	s.free = i + 1
}

func (s *wideStore) bytes() int64 {
	return int64(len(s.chunks))*int64(unsafe.Sizeof([wideChunk]wide{})) + int64(cap(s.chunks))*8
}

func (w *wide) object() Object {
	return Object{
		ID: w.id, Birth: w.birth, Extent: Extent{Drive: w.drive, Start: w.start, Blocks: w.blocks},
		Written: w.written, Capacity: w.capacity, Owner: w.owner, Tag: w.tag, Created: w.created,
		Generation: w.generation, Partner: w.partner,
	}
}

const sumChunk = 8192 // checksums: 32 KiB

// sumArena is a chunked array of groups of n checksums, with a free list
// through each free group's first.
type sumArena struct {
	chunks []*[sumChunk]uint32
	next   uint32 // the lowest group never used
	free   uint32 // the group freed last plus 1, or 0
}

// sumStore is an arena for each number of checksums.
type sumStore struct {
	arenas [MaxInlineSums + 1]sumArena
	allocs uint64 // of chunks
}

func (a *sumArena) at(group uint32, n int) []uint32 {
	per := uint32(sumChunk / n)
	from := int(group%per) * n
	return a.chunks[group/per][from : from+n : from+n]
}

// put stores checksums and returns where; 0 when there are none.
func (s *sumStore) put(sums []uint32) uint32 {
	n := len(sums)
	if n == 0 {
		return 0
	}
	a := &s.arenas[n]
	group := a.free - 1
	if a.free != 0 {
		a.free = a.at(group, n)[0]
	} else {
		group = a.next
		a.next++
		if int(group)/(sumChunk/n) == len(a.chunks) {
			a.chunks = append(a.chunks, new([sumChunk]uint32))
			s.allocs++
		}
	}
	copy(a.at(group, n), sums)
	return group
}

// get returns a copy of n checksums; nil when n is 0.
func (s *sumStore) get(group uint32, n int) []uint32 {
	if n == 0 {
		return nil
	}
	return append(make([]uint32, 0, n), s.arenas[n].at(group, n)...)
}

func (s *sumStore) drop(group uint32, n int) {
	if n == 0 {
		return
	}
	a := &s.arenas[n]
	a.at(group, n)[0] = a.free
	a.free = group + 1
}

func (s *sumStore) bytes() int64 {
	var b int64
	for i := range s.arenas {
		b += int64(len(s.arenas[i].chunks))*sumChunk*4 + int64(cap(s.arenas[i].chunks))*8
	}
	return b
}
