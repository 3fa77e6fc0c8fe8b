package mlog

import "github.com/mpool-go/mpool/layout"

// place is where the next fragment goes: a final page and the payload bytes
// that are used in it. used is at most PayloadSize-FragmentHeader: a page in
// which no fragment fits is full, and the place is in the next one.
type place struct {
	page uint32
	used int
}

// dataPerPage is what a page holds of a record that fills it.
const dataPerPage = PayloadSize - FragmentHeader

// starts returns where a record of n bytes that is appended at p begins.
func (p place) starts(n int64) place {
	if n > 0 && PayloadSize-p.used == FragmentHeader {
		return place{page: p.page + 1} // a header without data would fit
	}
	return p
}

// after returns the place behind a record of n bytes that is appended at p.
func (p place) after(n int64) place {
	p = p.starts(n)
	here := min(n, int64(PayloadSize-p.used-FragmentHeader))
	p.used += FragmentHeader + int(here)
	rest := n - here
	if rest == 0 {
		return p.normal()
	}
	p = place{page: p.page + 1 + uint32(rest/dataPerPage)}
	if rest %= dataPerPage; rest > 0 {
		p.used = FragmentHeader + int(rest)
	}
	return p.normal()
}

// normal moves on to the next page when the page is full.
func (p place) normal() place {
	if PayloadSize-p.used < FragmentHeader {
		return place{page: p.page + 1}
	}
	return p
}

// fits says whether a log of finals final pages may end at p. The page behind
// the last must be empty: there is no place for it.
func (p place) fits(finals uint32) bool {
	return p.page < finals || p.page == finals && p.used == 0
}

// bytes returns the payload bytes before p.
func (p place) bytes() int64 { return int64(p.page)*PayloadSize + int64(p.used) }

// finalPages returns how many final pages an extent of so many blocks has.
func finalPages(blocks uint32) uint32 {
	if blocks <= SlotPages {
		return 0
	}
	return blocks - SlotPages
}

// BlocksFor returns how many blocks (of layout.BlockSize) the extent of a log
// needs, so that an empty log takes one record of capacity bytes, or, when that
// is more than MaxRecord, records of MaxRecord that sum up to it. Many small
// records need more: each costs a fragment header. Zero if no extent can be so
// large.
func BlocksFor(capacity int64) uint32 {
	const limit = int64(1) << 43 // fragments of this much overflow the blocks of an extent
	if capacity < 0 || capacity > limit {
		return 0
	}
	var p place
	for rest := capacity; ; {
		n := min(rest, MaxRecord)
		p = p.after(n)
		if rest -= n; rest == 0 {
			break
		}
	}
	if p.used > 0 || p.page == 0 {
		p.page++
	}
	return SlotPages + p.page
}

// Usable returns the payload bytes of a log in an extent of so many blocks:
// record data, [FragmentHeader] for each fragment, and what is left free at the
// ends of pages.
func Usable(blocks uint32) int64 { return int64(finalPages(blocks)) * PayloadSize }

// Cost bounds from above the payload bytes that a record of n bytes takes
// wherever it is appended, padding included.
func Cost(n int64) int64 {
	// One fragment more than full pages would take, up to 8 bytes left free
	// before the first one and up to 7 behind the last.
	fragments := (n+dataPerPage-1)/dataPerPage + 1
	return n + FragmentHeader*(fragments+2)
}

// offsetOf returns where final page k of an extent is on its drive, in bytes.
func offsetOf(e layout.Extent, k uint32) int64 {
	return e.Offset() + (SlotPages+int64(k))*PageSize
}
