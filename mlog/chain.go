package mlog

// chain is what is known at a border between two final pages of a log: what the
// page behind it must be like. The zero value, with the generation set, is the
// border before the first page.
type chain struct {
	generation uint64
	index      uint32 // of the page behind the border
	prev       uint32 // CRC of the page before it
	epoch      uint64 // who wrote the page before it
	group      uint64
	next       uint64 // number of the record that goes on or begins
	open       bool   // a record goes on
	total      uint32 // its length
	have       uint32 // bytes of it before the border
	bytes      int64  // record data before the border
}

// check says why p, a final page or a tail, cannot stand behind the border.
func (c *chain) check(p *Page) error {
	switch {
	case p.Generation != c.generation:
		return pageErrorf("generation %d, want %d", p.Generation, c.generation)
	case p.Index != c.index:
		return pageErrorf("page %d, want %d", p.Index, c.index)
	case p.Prev != c.prev:
		return pageErrorf("CRC %08x of the page before, want %08x", p.Prev, c.prev)
	case p.Epoch < c.epoch || p.Epoch == c.epoch && p.Group < c.group:
		return pageErrorf("older than the page before: epoch %d group %d, epoch %d group %d", p.Epoch, p.Group, c.epoch, c.group)
	case p.First != c.next:
		return pageErrorf("first record %d, want %d", p.First, c.next)
	case p.Continues != c.open:
		return pageErrorf("record %d goes on: %v, want %v", p.First, p.Continues, c.open)
	case !c.open:
		return nil
	}
	f := fragmentAt(p.Payload, 0)
	have := c.have + uint32(len(f.Data))
	if f.Total != c.total || have > c.total || (have == c.total) != (f.Type == FragmentLast) {
		return pageErrorf("record %d: %v fragment of %d bytes behind %d of %d (%d)", p.First, f.Type, len(f.Data), c.have, c.total, f.Total)
	}
	return nil
}

// add moves the border behind p, which was checked.
func (c *chain) add(p *Page) {
	c.index++
	c.prev = p.CRC
	c.epoch, c.group = p.Epoch, p.Group
	c.next = p.NextFirst()
	c.bytes += int64(p.Bytes)
	if !p.Open {
		c.open, c.total, c.have = false, 0, 0
		return
	}
	if p.Fragments == 1 && p.Continues {
		c.have += uint32(p.Bytes)
		return
	}
	f := fragmentAt(p.Payload, lastFragment(p))
	c.open, c.total, c.have = true, f.Total, uint32(len(f.Data))
}

// lastFragment returns the offset of a page's last fragment. The page has one.
func lastFragment(p *Page) int {
	at := 0
	for {
		next := at + FragmentHeader + len(fragmentAt(p.Payload, at).Data)
		if next >= len(p.Payload) {
			return at
		}
		at = next
	}
}

// chainAtTail returns the border before a tail, as the tail itself tells it.
// Data before it is not counted.
func chainAtTail(p *Page) chain {
	c := chain{generation: p.Generation, index: p.Index, prev: p.Prev, next: p.First, open: p.Continues}
	if p.Continues {
		// A tail never ends within a record, so the rest of it is here.
		f := fragmentAt(p.Payload, 0)
		c.total, c.have = f.Total, f.Total-uint32(len(f.Data))
	}
	return c
}
