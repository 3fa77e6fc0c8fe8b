package mblock

import (
	"sync/atomic"
	"unsafe"

	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// sumPage is a verified checksum page. It does not change once it is shared.
type sumPage struct {
	birth layout.BirthStamp
	index uint32
	used  atomic.Uint32 // 1: looked up since the last search for a victim
	sums  [PageSums]uint32
}

const (
	pageBytes = int64(unsafe.Sizeof(sumPage{}))
	maxWays   = 8
)

// SumCache keeps verified checksum pages of all objects of a pool, up to a
// bound. Safe for concurrent use, without locks: it may be asked where nothing
// may block. Birth stamps are never used twice, so that pages of deleted
// objects need not be removed: nobody asks for them, and they make room.
//
// A page may be in one set of places only, chosen by its hash; in each set,
// those not asked for lately go first.
type SumCache struct {
	sched *sched.Sched
	ways  int
	slots []atomic.Pointer[sumPage] // sets of ways
	hands []atomic.Uint32           // where the search for a victim goes on, by set

	hits, misses atomic.Uint64
	filled       atomic.Int64 // slots that have a page, which they never lose
}

// NewSums makes a cache of at most maxBytes; one of less than 4 KiB keeps
// nothing.
func NewSums(s *sched.Sched, maxBytes int64) *SumCache {
	n := int(max(maxBytes, 0) / pageBytes)
	c := &SumCache{sched: s, ways: min(n, maxWays)}
	if n == 0 {
		return c
	}
	sets := n / c.ways
	c.slots = make([]atomic.Pointer[sumPage], sets*c.ways)
	c.hands = make([]atomic.Uint32, sets)
	return c
}

// set returns the number of the set in which a page may be.
func (c *SumCache) set(birth layout.BirthStamp, index uint32) int {
	h := (uint64(birth) + uint64(index)*0xbf58476d1ce4e5b9) * 0x9e3779b97f4a7c15
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return int(h >> 32 * uint64(len(c.hands)) >> 32)
}

// keeps says whether the cache keeps anything.
func (c *SumCache) keeps() bool { return c != nil && len(c.slots) > 0 }

// get returns a page, or nil.
func (c *SumCache) get(birth layout.BirthStamp, index uint32) *sumPage {
	if !c.keeps() {
		return nil
	}
	p := c.find(birth, index)
	if p == nil {
		c.misses.Add(1)
		return nil
	}
	if p.used.Load() == 0 {
		p.used.Store(1)
	}
	c.hits.Add(1)
	return p
}

// has says whether a page is there, which counts as no look-up.
func (c *SumCache) has(birth layout.BirthStamp, index uint32) bool {
	return c.keeps() && c.find(birth, index) != nil
}

// find returns a page of a cache that keeps some, or nil.
func (c *SumCache) find(birth layout.BirthStamp, index uint32) *sumPage {
	from := c.set(birth, index) * c.ways
	for i := range c.ways {
		p := c.slots[from+i].Load()
		if p != nil && p.birth == birth && p.index == index {
			return p
		}
	}
	return nil
}

// put keeps a page, which must not change any more, in place of one that was
// not asked for lately. Two who put the same page keep both for a while.
func (c *SumCache) put(p *sumPage) {
	if !c.keeps() {
		return
	}
	set := c.set(p.birth, p.index)
	ways := c.slots[set*c.ways:][:c.ways]
	for i := range ways {
		if ways[i].CompareAndSwap(nil, p) {
			c.filled.Add(1)
			return
		}
	}
	c.sched.Point()
	// Twice round: the first may find all used, and marks them unused.
	for range 2 * c.ways {
		slot := &ways[int(c.hands[set].Add(1))%c.ways]
		if old := slot.Load(); old == nil || old.used.Swap(0) == 0 {
			slot.Store(p)
			return
		}
	}
}

// Bytes returns the memory that pages take. It takes no lock.
func (c *SumCache) Bytes() int64 { return c.filled.Load() * pageBytes }

// Stats returns how many pages were looked up and found, and looked up and not.
func (c *SumCache) Stats() (hits, misses uint64) { return c.hits.Load(), c.misses.Load() }
