package check

import (
	"fmt"

	"github.com/mpool-go/mpool/mlog"
)

// border is a place between two final pages of a log, and what a page must be
// like to have been written there. The zero value is the place before the first
// page.
type border struct {
	index uint32 // of the page behind it
	prev  uint32 // CRC of the page before it
	epoch uint64 // that wrote the page before it
	group uint64
	next  uint64 // number of the record that goes on or begins here
	total uint32 // length of the record that goes on, if one does
	have  uint32 // how much of it lies before; 0: none goes on
}

// refuses says why a page, a final one or a tail, was not written here, or "".
func (b *border) refuses(p *mlog.Page) string {
	switch {
	case p.Index != b.index:
		return fmt.Sprintf("it is page %d, not %d", p.Index, b.index)
	case p.Prev != b.prev:
		return fmt.Sprintf("it was written behind a page with CRC %08x, not %08x", p.Prev, b.prev)
	case p.Epoch < b.epoch, p.Epoch == b.epoch && p.Group < b.group:
		return fmt.Sprintf("epoch %d group %d comes before epoch %d group %d of the page before", p.Epoch, p.Group, b.epoch, b.group)
	case p.First != b.next:
		return fmt.Sprintf("it begins with record %d, not %d", p.First, b.next)
	case p.Continues != (b.have > 0):
		return fmt.Sprintf("record %d goes on: %v, in the page before: %v", p.First, p.Continues, b.have > 0)
	}
	if p.Continues {
		return b.refusesRest(p)
	}
	return ""
}

// refusesRest compares a page's first fragment with the record that goes on.
func (b *border) refusesRest(p *mlog.Page) string {
	for _, f := range p.All() {
		have := uint64(b.have) + uint64(len(f.Data))
		if f.Total != b.total || have > uint64(f.Total) || (f.Type == mlog.FragmentLast) != (have == uint64(f.Total)) {
			return fmt.Sprintf("record %d of %d bytes goes on with %d of %d", p.First, b.total, have, f.Total)
		}
		break
	}
	return ""
}

// pass moves the border behind a page that it does not refuse.
func (b *border) pass(p *mlog.Page) {
	carried := b.have
	n := border{index: b.index + 1, prev: p.CRC, epoch: p.Epoch, group: p.Group, next: p.First}
	for number, f := range p.All() {
		n.next, n.have, n.total = number+1, 0, 0
		if f.Type == mlog.FragmentFirst || f.Type == mlog.FragmentMiddle {
			n.next, n.have, n.total = number, uint32(len(f.Data)), f.Total
			if f.Type == mlog.FragmentMiddle {
				n.have += carried
			}
		}
	}
	*b = n
}
