package client

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
)

// proves G50: whatever was kept, and whatever of it went, reads give the bytes of the
// contents that were asked for, or nothing; and there is never more than was allowed.
func TestCache(t *testing.T) {
	const limit, size, objects = 6*cacheBlock + 100, 4*cacheBlock + 500, 3
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	c := newCache(limit)
	var all [objects][2][]byte
	for id := range all {
		for v := range all[id] {
			all[id][v] = contents(size, uint64(100*id+v))
		}
	}
	hits := 0
	for range 3000 {
		id, v := r.IntN(objects), r.IntN(20)/19 // seldom the other one
		k, version := cacheKey{"pool", layout.ObjectID(id)}, credit.Version{uint64(v), 1}
		data := all[id][v]
		switch r.IntN(20) {
		case 0:
			c.drop(k)
		case 1, 2, 3, 4, 5:
			from := cacheBlock * r.IntN(5)
			c.put(k, version, size, data[from:from+r.IntN(size-from)+1], int64(from))
		default:
			off := r.IntN(size)
			p := make([]byte, 1+r.IntN(cacheBlock))
			want := data[off:min(off+len(p), size)]
			if c.read(k, version, size, p, int64(off)) {
				hits++
				if !bytes.Equal(p[:len(want)], want) {
					t.Fatalf("a read of object %d of contents %d at %d gave others", id, v, off)
				}
			}
			if p := c.view(k, version, int64(off), 100); !bytes.Equal(p, data[off:off+len(p)]) {
				t.Fatalf("a view of object %d of contents %d at %d gave others", id, v, off)
			}
		}
		blocks, sum := 0, int64(0)
		for e := c.used.Front(); e != nil; e = e.Next() {
			blocks, sum = blocks+1, sum+int64(len(e.Value.(*cachedBlock).data))
		}
		for _, o := range c.objects {
			blocks -= len(o.blocks)
		}
		if c.size > limit || c.size != sum || blocks != 0 {
			t.Fatalf("%d bytes of %d, counted %d, and %d blocks too many", sum, limit, c.size, blocks)
		}
	}
	if hits < 20 {
		t.Errorf("%d reads were served: too few to say anything", hits)
	}
}
