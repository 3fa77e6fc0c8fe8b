package sim

import (
	"math/rand/v2"
	"slices"

	"github.com/mpool-go/mpool/bdev"
)

// write is a write or discard that is under way or in the cache. The pieces of
// one that has ended are immutable: changes make a new write.
type write struct {
	start   uint64 // rising number of its start, from 1
	end     uint64 // rising number of its end; 0 while under way
	offset  int64
	size    int64
	discard bool
	pieces  []piece // under way: as far as the buffer was fetched
	fetched int64   // bytes of the buffer fetched
}

// Write describes a volatile write, for tests and reports.
type Write struct {
	Offset, Size int64 // bytes
	Discard      bool
	Ended        bool // in the cache, else under way
}

// Pending returns the volatile writes and discards: those in the cache in the
// order of their ends, then those under way in the order of their starts.
func (d *Disk) Pending() []Write {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []Write
	for _, w := range d.volatileLocked() {
		list = append(list, Write{Offset: w.offset, Size: w.size, Discard: w.discard, Ended: w.end != 0})
	}
	return list
}

// +checklocks:d.mu
func (d *Disk) volatileLocked() []*write {
	if len(d.underway) == 0 {
		return d.pending
	}
	return slices.Concat(d.pending, d.underway)
}

// without returns the write less the given sectors of a page.
func (w *write) without(index int64, mask sectorMask) *write {
	for i, p := range w.pieces {
		if p.index == index && p.mask&mask != 0 {
			c := *w
			c.pieces = slices.Clone(w.pieces)
			c.pieces[i].mask &^= mask
			return &c
		}
	}
	return w
}

// flipped returns the write with bits of one byte flipped, if it has the byte.
func (w *write) flipped(index, at int64, flip byte) *write {
	for i, p := range w.pieces {
		if p.index == index && p.mask>>(at/sectorSize)&1 != 0 {
			data := new(page)
			if p.data != nil {
				*data = *p.data
			}
			data[at] ^= flip
			c := *w
			c.pieces = slices.Clone(w.pieces)
			c.pieces[i].data = data
			return &c
		}
	}
	return w
}

// bytesAt returns the memory of an operation from a position to the end of the
// buffer that the position lies in.
func bytesAt(o *bdev.Op, pos int64) []byte {
	if o.Buf != nil {
		return o.Buf[pos:]
	}
	for _, v := range o.Vec {
		if pos < int64(len(v)) {
			return v[pos:]
		}
		pos -= int64(len(v))
	}
	return nil
}

// fetch copies the operation's buffer up to a position, a multiple of the
// sector size, into the write's pieces.
func (w *write) fetch(o *bdev.Op, upTo int64) {
	for w.fetched < upTo {
		at := w.offset + w.fetched
		from := at % pageSize
		n := min(pageSize-from, upTo-w.fetched)
		src := bytesAt(o, w.fetched)
		var data *page
		if n == pageSize && len(src) >= pageSize {
			data = (*page)(append([]byte(nil), src[:pageSize]...)) // saves zeroing it first
		} else {
			data = new(page)
			for done := int64(0); done < n; {
				done += int64(copy(data[from+done:from+n], bytesAt(o, w.fetched+done)))
			}
		}
		w.add(piece{index: at / pageSize, mask: maskOf(from, from+n), data: data})
		w.fetched += n
	}
}

// add appends a piece, joining it to the last one when both are of one page.
func (w *write) add(p piece) {
	if n := len(w.pieces); n > 0 && w.pieces[n-1].index == p.index {
		last := &w.pieces[n-1]
		joined := *last.data
		for s := range pageSectors {
			if p.mask>>s&1 != 0 {
				copy(joined.sector(s), p.data.sector(s))
			}
		}
		last.data, last.mask = &joined, last.mask|p.mask
		return
	}
	w.pieces = append(w.pieces, p)
}

// shift moves a write to another place, by whole pages.
func (w *write) shift(by, size int64) {
	pages := size / pageSize
	for i := range w.pieces {
		w.pieces[i].index = ((w.pieces[i].index+by/pageSize)%pages + pages) % pages
	}
}

// beginLocked registers a write or discard that starts.
//
// +checklocks:d.mu
func (d *Disk) beginLocked(offset, size int64, discard bool) *write {
	d.starts++
	w := &write{start: d.starts, offset: offset, size: size, discard: discard}
	d.underway = append(d.underway, w)
	return w
}

// discardPiecesLocked makes what a discard does.
//
// +checklocks:d.mu
func (d *Disk) discardPiecesLocked(w *write, rng *rand.Rand) {
	reads := d.opts.DiscardRead
	if reads == DiscardAny {
		reads = [...]DiscardRead{DiscardZero, DiscardOld, DiscardGarbage}[rng.IntN(3)]
	}
	var data *page
	switch reads {
	case DiscardOld:
		return
	case DiscardGarbage:
		data = garbage(rng)
	case DiscardZero, DiscardAny:
	}
	for at := w.offset; at < w.offset+w.size; {
		from := at % pageSize
		n := min(pageSize-from, w.offset+w.size-at)
		index := at / pageSize
		if data != nil || d.heldLocked(index) {
			w.pieces = append(w.pieces, piece{index: index, mask: maskOf(from, from+n), data: data})
		}
		at += n
	}
}

// heldLocked says whether a page may hold anything but zeros.
//
// +checklocks:d.mu
func (d *Disk) heldLocked(index int64) bool {
	a, badA := d.durable.page(index)
	b, badB := d.current.page(index)
	return a != nil || b != nil || badA || badB
}

// leaveLocked takes a write out of those under way. It returns the list's own
// entry, which may differ from w: see settleLocked.
//
// +checklocks:d.mu
func (d *Disk) leaveLocked(start uint64) *write {
	for i, w := range d.underway {
		if w.start == start {
			d.underway = slices.Delete(d.underway, i, i+1)
			return w
		}
	}
	return nil
}

// arriveLocked puts a write that ends into the cache.
//
// +checklocks:d.mu
func (d *Disk) arriveLocked(w *write) {
	d.ends++
	w.end = d.ends
	if len(w.pieces) == 0 {
		return
	}
	if d.opts.WriteThrough {
		for _, p := range w.pieces {
			d.durable.apply(p)
		}
		return
	}
	if d.current == d.durable {
		d.current = d.durable.clone()
	}
	for _, p := range w.pieces {
		d.current.apply(p)
	}
	d.pending = append(d.pending, w)
	d.pendingBytes += int64(len(w.pieces)) * pageSize
	if d.pendingBytes > d.opts.CacheBytes {
		d.settlePrefixLocked(len(d.pending)/2 + 1)
	}
}

// settlePrefixLocked makes the oldest n writes of the cache durable.
//
// +checklocks:d.mu
func (d *Disk) settlePrefixLocked(n int) {
	for _, w := range d.pending[:n] {
		for _, p := range w.pieces {
			d.durable.apply(p)
		}
		d.pendingBytes -= int64(len(w.pieces)) * pageSize
	}
	d.pending = slices.Delete(d.pending, 0, n)
}

// coveredLocked returns how many writes of the cache had ended at a point: they
// are a prefix.
//
// +checklocks:d.mu
func (d *Disk) coveredLocked(ends uint64) int {
	n := 0
	for n < len(d.pending) && d.pending[n].end <= ends {
		n++
	}
	return n
}

// flushLocked makes the writes durable that had ended at a point.
//
// +checklocks:d.mu
func (d *Disk) flushLocked(ends uint64) { d.settlePrefixLocked(d.coveredLocked(ends)) }

// failFlushLocked is a flush that fails: each write that it would have covered
// becomes durable, is lost or stays as it is.
//
// +checklocks:d.mu
func (d *Disk) failFlushLocked(ends uint64, rng *rand.Rand) {
	n := d.coveredLocked(ends)
	// How likely each fate is differs from flush to flush: all lost and all
	// kept must happen too.
	lose := [...]uint32{0, 256, rng.Uint32N(257)}[rng.IntN(3)]
	settle := rng.Uint32N(257)
	lost := false
	kept := make([]*write, 0, len(d.pending))
	for _, w := range d.pending[:n] {
		switch {
		case rng.Uint32N(256) < lose:
			lost = true
			d.pendingBytes -= int64(len(w.pieces)) * pageSize
		case rng.Uint32N(256) < settle:
			for _, p := range w.pieces {
				d.durable.apply(p)
				for i, k := range kept {
					kept[i] = k.without(p.index, p.mask) // it was overwritten
				}
			}
			d.pendingBytes -= int64(len(w.pieces)) * pageSize
		default:
			kept = append(kept, w)
		}
	}
	d.pending = append(kept, d.pending[n:]...)
	if lost && rng.Uint32()&1 == 0 {
		d.forgetLocked()
	}
}

// forgetLocked makes reads see the medium and the cache only: what was lost
// can no longer be read.
//
// +checklocks:d.mu
func (d *Disk) forgetLocked() {
	d.current = d.durable.clone()
	for _, w := range d.pending {
		for _, p := range w.pieces {
			d.current.apply(p)
		}
	}
}
