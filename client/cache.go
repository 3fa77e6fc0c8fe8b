package client

import (
	"container/list"
	"sync"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
)

// cacheBlock is how much of an mblock is kept or dropped as one, in bytes.
const cacheBlock = 16 << 10

// cache keeps bytes of committed mblocks, at most limit of them; what was used
// longest ago goes first. It knows neither credits nor handles: who asks has the
// right to, and says which contents the object has for it. What is kept of other
// contents is dropped then.
//
// Blocks are never changed once they are here, and what was dropped stays with
// who still looks at it.
type cache struct {
	limit int64

	mu sync.Mutex
	// +checklocks:mu
	objects map[cacheKey]*cachedObject
	// +checklocks:mu
	used list.List // of *cachedBlock, the last used one first
	// +checklocks:mu
	size int64
	// +checklocks:mu
	hits, misses uint64
}

// cacheKey names an object.
type cacheKey struct {
	pool string // its UUID
	id   layout.ObjectID
}

// cachedObject is what there is of one object. It has at least one block.
type cachedObject struct {
	version credit.Version
	blocks  map[int64]*list.Element
}

// cachedBlock is the bytes of an object from number times cacheBlock; fewer than
// cacheBlock only if the object ends with them.
type cachedBlock struct {
	key    cacheKey
	number int64
	data   []byte
}

func newCache(limit int64) *cache {
	return &cache{limit: limit, objects: make(map[cacheKey]*cachedObject)}
}

// at returns the object if it is here with these contents. Of other contents
// nothing is kept.
//
// +checklocks:c.mu
func (c *cache) at(k cacheKey, v credit.Version) *cachedObject {
	o := c.objects[k]
	if o != nil && o.version != v {
		c.dropLocked(k)
		return nil
	}
	return o
}

// read copies the bytes at off, all that p takes of an object of length bytes, or
// none: then it returns false.
func (c *cache) read(k cacheKey, v credit.Version, length int64, p []byte, off int64) bool {
	end := min(off+int64(len(p)), length)
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.at(k, v)
	if o == nil {
		c.misses++
		return false
	}
	for at := off; at < end; {
		e := o.blocks[at/cacheBlock]
		if e == nil {
			c.misses++
			return false
		}
		b := e.Value.(*cachedBlock)
		n := copy(p[at-off:end-off], b.data[at-b.number*cacheBlock:])
		c.used.MoveToFront(e)
		if n == 0 {
			c.misses++
			return false // the object is longer than was said before
		}
		at += int64(n)
	}
	c.hits++
	return true
}

// view returns bytes at off that lie in one block, at most n of them; nil: they
// are not here.
func (c *cache) view(k cacheKey, v credit.Version, off int64, n int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.at(k, v)
	if o == nil {
		c.misses++
		return nil
	}
	e := o.blocks[off/cacheBlock]
	if e == nil {
		c.misses++
		return nil
	}
	c.hits++
	c.used.MoveToFront(e)
	b := e.Value.(*cachedBlock)
	p := b.data[min(off-b.number*cacheBlock, int64(len(b.data))):]
	n = min(n, len(p))
	return p[:n:n]
}

// put keeps bytes of an object of length bytes, from off, which is a multiple of
// cacheBlock. It copies them. A last piece that is no whole block, and does not
// end the object, is left out.
func (c *cache) put(k cacheKey, v credit.Version, length int64, p []byte, off int64) {
	for len(p) > 0 {
		n := min(len(p), cacheBlock)
		if n < cacheBlock && off+int64(n) != length {
			return
		}
		c.keep(k, v, &cachedBlock{key: k, number: off / cacheBlock, data: append([]byte(nil), p[:n]...)})
		p, off = p[n:], off+int64(n)
	}
}

// keep takes a block, and drops others if there is no room.
func (c *cache) keep(k cacheKey, v credit.Version, b *cachedBlock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if int64(len(b.data)) > c.limit {
		return
	}
	o := c.at(k, v)
	if o != nil && o.blocks[b.number] != nil {
		return // another reader was faster
	}
	for c.size+int64(len(b.data)) > c.limit {
		c.evict(c.used.Back())
	}
	if o = c.objects[k]; o == nil { // the last of its blocks may have gone just now
		o = &cachedObject{version: v, blocks: make(map[int64]*list.Element)}
		c.objects[k] = o
	}
	o.blocks[b.number] = c.used.PushFront(b)
	c.size += int64(len(b.data))
}

// evict drops one block.
//
// +checklocks:c.mu
func (c *cache) evict(e *list.Element) {
	b := c.used.Remove(e).(*cachedBlock)
	c.size -= int64(len(b.data))
	o := c.objects[b.key]
	delete(o.blocks, b.number)
	if len(o.blocks) == 0 {
		delete(c.objects, b.key)
	}
}

// drop drops all that there is of an object.
func (c *cache) drop(k cacheKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(k)
}

// +checklocks:c.mu
func (c *cache) dropLocked(k cacheKey) {
	if o := c.objects[k]; o != nil {
		for _, e := range o.blocks { // order does not matter: all go
			c.evict(e)
		}
	}
}

// stats sets its counters in s.
func (c *cache) stats(s *CreditStats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Hits, s.Misses, s.Bytes = c.hits, c.misses, c.size
}
