package bdev

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BufferAlign is the alignment of every buffer, in bytes: it suits any device.
const BufferAlign = 4096

const (
	minClass  = 12 // 4 KiB
	hugeClass = 21 // 2 MiB, a huge page: smaller buffers are cut from one, others have their own
	maxClass  = 26 // 64 MiB: beyond, nothing is kept

	// keepBuffers is how much free memory the package's own pool keeps, unless KeepBuffers
	// says less.
	keepBuffers = 64 << 20
)

// buffers is what AllocBuffer allocates from. Memory is the process's, so
// there is one; it holds no state that anybody's result depends on.
var buffers = NewBufferPool(keepBuffers)

// AllocBuffer returns n bytes of memory for I/O, aligned to BufferAlign, off
// the Go heap. The content is undefined: whoever reads it before a device or
// he himself wrote it makes a simulation depend on its past. Give it back with
// FreeBuffer, once no operation is under way with it; what is never given back
// is lost. Builds with the race detector or the tag invariants take it from
// the Go heap instead, filled with a pattern, where races on its content are
// seen, double frees panic and tasks unwound by a simulated power cut leak
// nothing.
func AllocBuffer(n int) []byte { return buffers.Alloc(n) }

// FreeBuffer gives back what AllocBuffer returned, or a prefix of it. Nil is
// allowed.
func FreeBuffer(b []byte) { buffers.Free(b) }

// KeepBuffers makes n bytes, but never more than 64 MiB, what of free buffers is kept in
// memory for those to come. It is for a process that counts its memory.
func KeepBuffers(n int64) { buffers.Keep(min(n, keepBuffers)) }

// Aligned says whether a buffer may be used with any device: its address and
// length are multiples of BufferAlign.
func Aligned(p []byte) bool {
	return len(p)%BufferAlign == 0 && address(p)%BufferAlign == 0
}

func address(p []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(p))) }

// BufferStats are the figures of a BufferPool.
type BufferStats struct {
	Live int64 // bytes handed out, in size classes
	Kept int64 // bytes free and still backed by memory
}

// BufferPool hands out aligned memory from outside the Go heap in power-of-two
// size classes from 4 KiB, and recycles it. Safe for concurrent use; it never
// calls into sched, so tasks of a simulation may use it anywhere.
type BufferPool struct {
	mu sync.Mutex
	// +checklocks:mu
	limit int64
	// Free buffers by class. Warm ones are backed by memory, cold ones are
	// address space only, or the rest of a huge page: buffers below hugeClass
	// share those and are never unmapped.
	// +checklocks:mu
	warm, cold [maxClass + 1][]unsafe.Pointer
	// +checklocks:mu
	stats BufferStats
	// heap holds the addresses handed out that are Go memory. The numbers keep
	// nothing alive: that of a leaked buffer may be reused.
	// +checklocks:mu
	heap     map[uintptr]struct{}
	heapLive atomic.Int64 // len(heap)
}

// NewBufferPool makes a pool that keeps at most so many free bytes in memory.
func NewBufferPool(keep int64) *BufferPool {
	return &BufferPool{limit: keep, heap: make(map[uintptr]struct{})}
}

// Keep changes how many free bytes the pool keeps in memory, for those to come.
func (p *BufferPool) Keep(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = n
}

// Stats returns the pool's figures.
func (p *BufferPool) Stats() BufferStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// classOf returns the exponent of the smallest class that holds n bytes.
func classOf(n int) int { return max(minClass, bits.Len(uint(n-1))) }

// capacityOf returns how many bytes a buffer of n bytes takes.
func capacityOf(n int) int {
	if c := classOf(n); c <= maxClass {
		return 1 << c
	}
	return (n + 1<<hugeClass - 1) &^ (1<<hugeClass - 1)
}

// Alloc returns n bytes, with a capacity of their size class. n must be > 0.
func (p *BufferPool) Alloc(n int) []byte {
	if n <= 0 {
		panic(fmt.Sprintf("bdev: a buffer of %d bytes", n))
	}
	if heapBuffers {
		return p.allocHeap(n)
	}
	size := capacityOf(n)
	p.mu.Lock()
	b := p.takeLocked(size)
	if b != nil {
		p.stats.Live += int64(size)
	}
	p.mu.Unlock()
	if b != nil {
		return b[:n]
	}
	return p.allocFresh(n, size)
}

// takeLocked returns a free buffer of a class, or nil.
//
// +checklocks:p.mu
func (p *BufferPool) takeLocked(size int) []byte {
	c := classOf(size)
	if c > maxClass {
		return nil
	}
	for _, list := range []*[]unsafe.Pointer{&p.warm[c], &p.cold[c]} {
		if last := len(*list) - 1; last >= 0 {
			b := (*list)[last]
			*list = (*list)[:last]
			if list == &p.warm[c] {
				p.stats.Kept -= int64(size)
			}
			return unsafe.Slice((*byte)(b), size)
		}
	}
	for d := c + 1; d < hugeClass; d++ {
		if last := len(p.cold[d]) - 1; last >= 0 {
			b := p.cold[d][last]
			p.cold[d] = p.cold[d][:last]
			p.cutLocked(b, d, c)
			return unsafe.Slice((*byte)(b), size)
		}
	}
	return nil
}

// cutLocked cuts a free buffer of class d down to class c. What is left of it is a
// buffer of each class between. So buffers of all sizes share few huge pages, each in
// one piece for the device.
//
// +checklocks:p.mu
func (p *BufferPool) cutLocked(b unsafe.Pointer, d, c int) {
	for d--; d >= c; d-- {
		p.cold[d] = append(p.cold[d], unsafe.Add(b, 1<<d))
	}
}

// allocFresh maps new memory. Where the kernel refuses it, the Go heap gives.
func (p *BufferPool) allocFresh(n, size int) []byte {
	b, err := mapMemory(max(size, 1<<hugeClass))
	if err != nil {
		return p.allocHeap(n)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Live += int64(size)
	p.cutLocked(unsafe.Pointer(unsafe.SliceData(b)), hugeClass, classOf(size))
	return b[:n:size]
}

// mapMemory maps size bytes, aligned to huge pages and advised to use them.
func mapMemory(size int) ([]byte, error) {
	const extra = 1 << hugeClass
	// MmapPtr, not Mmap: the latter keeps a table of its own of every mapping.
	at, err := unix.MmapPtr(-1, 0, nil, uintptr(size+extra), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	head := -uintptr(at) & (1<<hugeClass - 1)
	// Failures leave address space mapped, or pages small: no harm.
	if head > 0 {
		_ = unix.MunmapPtr(at, head) //nolint:errcheck // see above
	}
	at = unsafe.Add(at, head)
	if tail := uintptr(extra) - head; tail > 0 {
		_ = unix.MunmapPtr(unsafe.Add(at, size), tail) //nolint:errcheck // see above
	}
	_ = unix.Madvise(unsafe.Slice((*byte)(at), size), unix.MADV_HUGEPAGE) //nolint:errcheck // see above
	return unsafe.Slice((*byte)(at), size), nil
}

// Free gives back what Alloc returned, or a prefix of it.
func (p *BufferPool) Free(b []byte) {
	if b == nil {
		return
	}
	b = b[:cap(b)]
	size := len(b)
	if size != capacityOf(size) || address(b)%BufferAlign != 0 {
		panic(fmt.Sprintf("bdev: FreeBuffer of %d bytes that AllocBuffer did not return", size))
	}
	if (heapBuffers || p.heapLive.Load() > 0) && p.freeHeap(b) {
		return
	}
	c, at := classOf(size), unsafe.Pointer(unsafe.SliceData(b))
	p.mu.Lock()
	p.stats.Live -= int64(size)
	keep := c <= maxClass && p.stats.Kept+int64(size) <= p.limit
	if keep {
		p.stats.Kept += int64(size)
		p.warm[c] = append(p.warm[c], at)
	}
	p.mu.Unlock()
	switch {
	case keep:
	case c >= hugeClass:
		if err := unix.MunmapPtr(at, uintptr(size)); err != nil {
			panic(fmt.Sprintf("bdev: unmap a buffer: %v", err))
		}
	default:
		// Its memory goes back, its addresses stay. If that fails, only more
		// memory is kept than should be.
		_ = unix.Madvise(b, unix.MADV_DONTNEED) //nolint:errcheck // see above
		p.mu.Lock()
		p.cold[c] = append(p.cold[c], at)
		p.mu.Unlock()
	}
}

// allocHeap takes a buffer from the Go heap.
func (p *BufferPool) allocHeap(n int) []byte {
	size := capacityOf(n)
	b := make([]byte, size+BufferAlign)
	skip := int(-address(b) & (BufferAlign - 1))
	b = b[skip : skip+size : skip+size]
	fill(b, 0xdb)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heap[address(b)] = struct{}{}
	p.heapLive.Store(int64(len(p.heap)))
	p.stats.Live += int64(size)
	return b[:n]
}

// freeHeap leaves a buffer to the garbage collector if it is the heap's.
func (p *BufferPool) freeHeap(b []byte) bool {
	p.mu.Lock()
	_, ok := p.heap[address(b)]
	if ok {
		delete(p.heap, address(b))
		p.heapLive.Store(int64(len(p.heap)))
		p.stats.Live -= int64(len(b))
	}
	p.mu.Unlock()
	if ok && heapBuffers {
		fill(b, 0xdd) // whoever still uses it shall notice
	}
	if !ok && heapBuffers {
		panic("bdev: FreeBuffer of a buffer that is not in use")
	}
	return ok
}

func fill(b []byte, v byte) {
	b[0] = v
	for done := 1; done < len(b); done *= 2 {
		copy(b[done:], b[:done])
	}
}
