package space

import "math/bits"

const wordZones = 64

// node sums up the free zones of a range: how many from its beginning, the most
// in a row, how many to its end.
type node struct {
	prefix, longest, suffix uint32
}

// freeRuns is a set of zones that finds runs. words has a bit for each zone;
// nodes is a complete binary tree over words in the usual array form: the
// children of i are 2i and 2i+1, and what would be at len(nodes)+w is word w,
// summed up when it is needed. Zones past the end are never free.
type freeRuns struct {
	words []uint64
	nodes []node // length a power of two; nodes[0] is unused
}

// wordsFor returns how many words n zones need.
func wordsFor(n uint32) int { return (int(n) + wordZones - 1) / wordZones }

// newFreeRuns makes a set for n zones, none of them free.
func newFreeRuns(n uint32) freeRuns {
	words := wordsFor(n)
	leaves := 1
	for leaves < words {
		leaves *= 2
	}
	return freeRuns{words: make([]uint64, words), nodes: make([]node, leaves)}
}

// grown returns a copy of the set with room for n zones.
func (f *freeRuns) grown(n uint32) freeRuns {
	g := newFreeRuns(n)
	copy(g.words, f.words)
	g.update(0, len(g.words)-1)
	return g
}

// leaf sums up a word.
func (f *freeRuns) leaf(w int) node {
	if w >= len(f.words) {
		return node{}
	}
	v := f.words[w]
	switch v {
	case 0:
		return node{}
	case ^uint64(0):
		return node{wordZones, wordZones, wordZones}
	}
	return node{
		prefix:  uint32(bits.TrailingZeros64(^v)),
		longest: longestIn(v),
		suffix:  uint32(bits.LeadingZeros64(^v)),
	}
}

// longestIn returns the length of the longest run of ones, by shrinking all
// runs until they are gone, first in large steps.
func longestIn(v uint64) uint32 {
	var n uint32
	for step := uint32(32); step > 0 && v != 0; step /= 2 {
		if s := erode(v, step); s != 0 {
			v, n = s, n+step
		}
	}
	if v != 0 {
		n++
	}
	return n
}

// erode returns the ones of v that step more ones follow: it takes step off the
// top of every run. step is a power of two.
func erode(v uint64, step uint32) uint64 {
	// After each round a one stands for twice as many in a row.
	for have := uint32(1); have < step; have *= 2 {
		v &= v >> have
	}
	return v & (v >> 1)
}

func (f *freeRuns) at(i int) node {
	if i >= len(f.nodes) {
		return f.leaf(i - len(f.nodes))
	}
	return f.nodes[i]
}

// join sums up two neighbours of size zones each.
func join(a, b node, size uint32) node {
	n := node{prefix: a.prefix, longest: max(a.longest, b.longest, a.suffix+b.prefix), suffix: b.suffix}
	if a.prefix == size {
		n.prefix += b.prefix
	}
	if b.suffix == size {
		n.suffix += a.suffix
	}
	return n
}

// update sums up again what is above the words lo..hi.
func (f *freeRuns) update(lo, hi int) {
	if len(f.nodes) == 1 {
		return // a single word: the root is the leaf
	}
	lo, hi = lo+len(f.nodes), hi+len(f.nodes)
	for size := uint32(wordZones); lo > 1; size *= 2 {
		lo, hi = lo/2, hi/2
		for i := lo; i <= hi; i++ {
			f.nodes[i] = join(f.at(2*i), f.at(2*i+1), size)
		}
	}
}

// longest returns the length of the longest run.
func (f *freeRuns) longest() uint32 { return f.at(1).longest }

// first returns the beginning of the first run of at least n zones. There must
// be one: n is at least 1 and at most longest().
func (f *freeRuns) first(n uint32) uint32 {
	i, from := 1, uint32(0)
	size := uint32(len(f.nodes) / 2 * wordZones) // zones under each child of i
	for ; i < len(f.nodes); size /= 2 {
		left := f.at(2 * i)
		switch {
		case left.longest >= n:
			i = 2 * i
		case left.suffix+f.at(2*i+1).prefix >= n:
			return from + size - left.suffix
		default:
			i, from = 2*i+1, from+size
		}
	}
	v := f.words[i-len(f.nodes)]
	for {
		skip := uint32(bits.TrailingZeros64(v))
		run := uint32(bits.TrailingZeros64(^(v >> skip)))
		if run >= n {
			return from + skip
		}
		v &^= (1<<run - 1) << skip
	}
}

// each calls f with each word that the run touches and the bits in question.
func (f *freeRuns) each(r Run, do func(word *uint64, mask uint64)) {
	for start, end := uint64(r.Start), r.end(); start < end; {
		w, bit := start/wordZones, start%wordZones
		n := min(wordZones-bit, end-start)
		do(&f.words[w], (1<<n-1)<<bit)
		start += n
	}
}

// add makes a run free.
func (f *freeRuns) add(r Run) {
	f.each(r, func(w *uint64, mask uint64) { *w |= mask })
	f.update(int(r.Start/wordZones), int((r.end()-1)/wordZones))
}

// remove makes a run not free.
func (f *freeRuns) remove(r Run) {
	f.each(r, func(w *uint64, mask uint64) { *w &^= mask })
	f.update(int(r.Start/wordZones), int((r.end()-1)/wordZones))
}

// count returns how many zones of a run are free.
func (f *freeRuns) count(r Run) (n uint32) {
	f.each(r, func(w *uint64, mask uint64) { n += uint32(bits.OnesCount64(*w & mask)) })
	return n
}

// firstTaken returns the first zone of a run that is not free; one must be.
func (f *freeRuns) firstTaken(r Run) uint32 {
	zone := r.Start
	for f.words[zone/wordZones]>>(zone%wordZones)&1 != 0 {
		zone++
	}
	return zone
}
