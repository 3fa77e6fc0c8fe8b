package sim

import "math/bits"

const (
	pageSize    = 4096 // bytes
	sectorSize  = 512  // bytes
	pageSectors = pageSize / sectorSize
	chunkPages  = 32
	allSectors  = sectorMask(1<<pageSectors - 1)
)

// sectorMask chooses sectors of a page: bit i is the i-th.
type sectorMask uint8

func (m sectorMask) count() int { return bits.OnesCount8(uint8(m)) }

// maskOf returns the sectors of a page that bytes [from, to) of it touch.
func maskOf(from, to int64) sectorMask {
	first, end := from/sectorSize, (to+sectorSize-1)/sectorSize
	return sectorMask(1<<end-1) &^ sectorMask(1<<first-1)
}

// page is the content of 4096 bytes of a disk. A page that a medium does not
// own is shared and immutable.
type page [pageSize]byte

// piece is what a write does to one page. The data is immutable; nil is zeros.
type piece struct {
	index int64 // of the page
	mask  sectorMask
	data  *page
}

// owner is the identity of a medium between two clonings.
type owner struct{ _ byte }

// chunk is a run of pages. It may be written by the medium whose owner it
// carries and is immutable for all others.
type chunk struct {
	owner *owner
	own   uint32 // bit i: page i is in no other hands
	bad   uint32 // bit i: page i is unreadable
	pages [chunkPages]*page
}

// medium is sparse content, cheap to clone: clones share chunks and pages until
// one of them writes. An absent chunk or page reads as zeros.
type medium struct {
	owner  *owner
	chunks []*chunk
}

func newMedium(size int64) *medium {
	const span = chunkPages * pageSize
	return &medium{owner: new(owner), chunks: make([]*chunk, (size+span-1)/span)}
}

// clone returns a copy. The medium itself loses the ownership of its chunks.
func (m *medium) clone() *medium {
	m.owner = new(owner)
	return &medium{owner: new(owner), chunks: append([]*chunk(nil), m.chunks...)}
}

// page returns a page's content, nil for zeros, and whether it is unreadable.
func (m *medium) page(index int64) (content *page, bad bool) {
	c := m.chunks[index/chunkPages]
	if c == nil {
		return nil, false
	}
	i := uint(index % chunkPages)
	return c.pages[i], c.bad>>i&1 != 0
}

// writable returns the page's chunk, in this medium's hands alone.
func (m *medium) writable(index int64) *chunk {
	at := &m.chunks[index/chunkPages]
	switch {
	case *at == nil:
		*at = &chunk{owner: m.owner}
	case (*at).owner != m.owner:
		c := **at
		c.owner, c.own = m.owner, 0
		*at = &c
	}
	return *at
}

// apply does a piece. A page written whole is shared with the piece and
// readable again.
func (m *medium) apply(p piece) {
	if p.mask == 0 {
		return
	}
	c := m.writable(p.index)
	i := uint(p.index % chunkPages)
	if p.mask == allSectors {
		c.pages[i] = p.data
		c.own &^= 1 << i
		c.bad &^= 1 << i
		return
	}
	to := m.ownPage(p.index)
	for s := range pageSectors {
		if p.mask>>s&1 == 0 {
			continue
		}
		at := to[s*sectorSize : (s+1)*sectorSize]
		if p.data == nil {
			clear(at)
		} else {
			copy(at, p.data[s*sectorSize:])
		}
	}
}

// ownPage returns a page that may be written in place.
func (m *medium) ownPage(index int64) *page {
	c := m.writable(index)
	i := uint(index % chunkPages)
	if c.own>>i&1 == 0 {
		p := new(page)
		if c.pages[i] != nil {
			*p = *c.pages[i]
		}
		c.pages[i] = p
		c.own |= 1 << i
	}
	return c.pages[i]
}

// setBad makes a page unreadable.
func (m *medium) setBad(index int64) {
	m.writable(index).bad |= 1 << (index % chunkPages)
}

// sector returns one sector of a page's content.
func (p *page) sector(s int) []byte { return p[s*sectorSize : (s+1)*sectorSize] }
