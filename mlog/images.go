package mlog

import (
	"slices"

	"github.com/mpool-go/mpool/bdev"
)

// Sizes of chunks, in pages.
const (
	chunkMost = 64 // 256 KiB
	chunkIdle = 4  // what an idle log may keep
)

// images are the pages of a log that are in memory: those that are full and not
// yet durable, and the tail. They are consecutive. Guarded by the log's mutex;
// the bytes of full pages that are in the group in flight are the writer's.
type images struct {
	chunks []*chunk
}

// chunk is a run of page images that are written at once.
type chunk struct {
	base  uint32 // the final page that the first one is
	buf   []byte
	pages []pageInfo
}

// pageInfo is what becomes a page's header when its group is written.
type pageInfo struct {
	first uint64
	used  uint16 // of a full page
}

func (c *chunk) end() uint32 { return c.base + uint32(len(c.pages)) }

func (c *chunk) image(k uint32) []byte {
	at := int(k-c.base) * PageSize
	return c.buf[at : at+PageSize : at+PageSize]
}

// find returns the chunk that has page k, or nil.
func (m *images) find(k uint32) *chunk {
	for _, c := range slices.Backward(m.chunks) {
		if k >= c.base {
			if k < c.end() {
				return c
			}
			return nil
		}
	}
	return nil
}

// grow adds a chunk of n pages from page k on, which is behind the last one.
func (m *images) grow(k, n uint32) *chunk {
	c := &chunk{base: k, buf: bdev.AllocBuffer(int(n) * PageSize), pages: make([]pageInfo, n)}
	m.chunks = append(m.chunks, c)
	return c
}

// release frees the chunks that have no page from k on.
func (m *images) release(k uint32) {
	n := 0
	for n < len(m.chunks) && m.chunks[n].end() <= k {
		bdev.FreeBuffer(m.chunks[n].buf)
		n++
	}
	if n > 0 {
		rest := copy(m.chunks, m.chunks[n:])
		clear(m.chunks[rest:])
		m.chunks = m.chunks[:rest]
	}
}

// shrink brings an idle log's memory down to its tail page. No full page is
// waiting to be written.
func (m *images) shrink(tail place) {
	m.release(tail.page)
	old := m.find(tail.page)
	switch {
	case old == nil:
	case tail.used == 0:
		m.release(old.end())
	case len(old.pages) > chunkIdle:
		c := m.grow(tail.page, 1)
		c.pages[0] = old.pages[tail.page-old.base]
		copy(c.buf[HeaderSize:HeaderSize+tail.used], old.image(tail.page)[HeaderSize:])
		bdev.FreeBuffer(old.buf)
		m.chunks = append(m.chunks[:0], c)
	}
}
