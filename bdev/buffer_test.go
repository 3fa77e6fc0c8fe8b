package bdev

import (
	"math/rand/v2"
	"testing"
)

func TestBuffersAreAlignedDisjointAndBounded(t *testing.T) {
	const keep = 4 << 20
	p := NewBufferPool(keep)
	rng := rand.New(rand.NewPCG(1, 2))
	type held struct {
		b   []byte
		tag byte
	}
	var live []held
	var size int64
	for i := range 2000 {
		if len(live) > 0 && (rng.IntN(2) == 0 || size > 32<<20) {
			j := rng.IntN(len(live))
			h := live[j]
			live[j] = live[len(live)-1]
			live = live[:len(live)-1]
			for at := 0; at < len(h.b); at += 4096 {
				if h.b[at] != h.tag {
					t.Fatalf("a buffer of %d bytes was shared at %d", len(h.b), at)
				}
			}
			size -= int64(cap(h.b))
			p.Free(h.b[:rng.IntN(len(h.b))])
			continue
		}
		n := 1 + rng.IntN(1<<(1+rng.IntN(22)))
		b := p.Alloc(n)
		if len(b) != n || address(b)%BufferAlign != 0 {
			t.Fatalf("Alloc(%d) gave %d bytes at %#x", n, len(b), address(b))
		}
		for at := 0; at < n; at += 4096 {
			b[at] = byte(i)
		}
		live = append(live, held{b, byte(i)})
		size += int64(cap(b))
		if s := p.Stats(); s.Live != size || s.Kept > keep {
			t.Fatalf("stats %+v, live %d", s, size)
		}
	}
	for _, h := range live {
		p.Free(h.b)
	}
	if s := p.Stats(); s.Live != 0 || s.Kept > keep {
		t.Fatalf("stats at the end %+v", s)
	}
}

func TestBufferSizes(t *testing.T) {
	p := NewBufferPool(64 << 20)
	for _, n := range []int{1, 4096, 4097, 1<<18 - 1, 1 << 18, 1<<21 + 1, 1 << 26, 1<<26 + 1} {
		b := p.Alloc(n)
		if !Aligned(b[:cap(b)]) || cap(b) < n {
			t.Errorf("Alloc(%d): capacity %d at %#x", n, cap(b), address(b))
		}
		if n >= 1<<21 && !heapBuffers && address(b)%(1<<21) != 0 {
			t.Errorf("Alloc(%d): %#x is not aligned to a huge page", n, address(b))
		}
		p.Free(b)
	}
	p.Free(nil)
	if Aligned(p.Alloc(8192)[1:]) || Aligned(p.Alloc(8192)[:100]) {
		t.Error("Aligned takes what is not")
	}
}

// Small buffers of all sizes are cut from one huge page, without a gap.
func TestBuffersShareAHugePage(t *testing.T) {
	p := NewBufferPool(64 << 20)
	rest, pages := 1<<hugeClass, map[uintptr]bool{}
	for rest > 0 {
		for n := 4096; n <= min(rest, 1<<20); n *= 4 {
			b := p.Alloc(n)
			rest -= cap(b)
			pages[address(b)>>hugeClass] = true
			if address(b)%uintptr(n) != 0 && !heapBuffers {
				t.Errorf("Alloc(%d): %#x", n, address(b))
			}
		}
	}
	if rest != 0 {
		t.Fatalf("%d bytes are left", rest)
	}
	// The last of it may have needed room in one piece that there was not.
	if len(pages) > 2 && !heapBuffers {
		t.Errorf("a huge page's worth lies on %d of them", len(pages))
	}
}

func TestFreeOfForeignMemoryPanics(t *testing.T) {
	for name, free := range map[string]func(p *BufferPool){
		"resliced": func(p *BufferPool) { p.Free(p.Alloc(16384)[4096:]) },
		"clipped":  func(p *BufferPool) { p.Free(p.Alloc(12288)[:4097:12288]) },
		"twice": func(p *BufferPool) {
			b := p.Alloc(4096)
			p.Free(b)
			p.Free(b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "twice" && !heapBuffers {
				t.Skip("seen only in builds with race or invariants")
			}
			defer func() {
				if recover() == nil {
					t.Fatal("no panic")
				}
			}()
			free(NewBufferPool(1 << 20))
		})
	}
}

func BenchmarkBuffer(b *testing.B) {
	p := NewBufferPool(1 << 20)
	for b.Loop() {
		p.Free(p.Alloc(4096))
	}
}
