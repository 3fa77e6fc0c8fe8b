package mblock

import (
	"sync"
	"testing"

	"github.com/mpool-go/mpool/layout"
)

func (c *SumCache) pages() (n int) {
	for i := range c.slots {
		if c.slots[i].Load() != nil {
			n++
		}
	}
	return n
}

func TestCacheIsBounded(t *testing.T) {
	for _, size := range []int64{-1, 0, pageBytes - 1, pageBytes, 5 * pageBytes, 1000 * pageBytes} {
		c := NewSums(nil, size)
		for i := range 5000 {
			c.put(&sumPage{birth: layout.BirthStamp(i % 70), index: uint32(i)})
		}
		if n := int64(c.pages()); n > max(size, 0)/pageBytes || n < max(size, 0)/pageBytes*9/10-8 {
			t.Errorf("cache of %d bytes holds %d pages", size, n)
		}
	}
	var none *SumCache
	none.put(&sumPage{})
	if none.get(0, 0) != nil {
		t.Error("no cache gives a page")
	}
}

func TestCacheKeepsWhatIsAskedFor(t *testing.T) {
	c := NewSums(nil, 800*pageBytes)
	hot := func(i uint32) { // asked for all the time
		if c.get(1, i) == nil {
			c.put(&sumPage{birth: 1, index: i})
		}
	}
	misses := 0
	for i := range uint32(50_000) {
		if c.get(1, i%100) == nil {
			misses++
		}
		hot(i % 100)
		if p := c.get(2, i); p != nil {
			t.Fatalf("page %d was never put", i)
		}
		c.put(&sumPage{birth: 2, index: i}) // asked for never again
	}
	if misses > 3000 {
		t.Errorf("%d of 50000 reads of 100 hot pages missed in a cache of 800", misses)
	}
}

func TestCacheConcurrently(t *testing.T) {
	c := NewSums(nil, 64*pageBytes)
	var wg sync.WaitGroup
	for w := range uint32(4) {
		wg.Go(func() {
			for i := range uint32(20_000) {
				birth, index := layout.BirthStamp(i%7), (i*13+w)%40
				if p := c.get(birth, index); p != nil {
					if p.birth != birth || p.index != index || p.sums[index] != uint32(birth)+index {
						t.Errorf("page %d of %d is another", index, birth)
					}
					continue
				}
				p := &sumPage{birth: birth, index: index}
				p.sums[index] = uint32(birth) + index
				c.put(p)
			}
		})
	}
	wg.Wait()
}
