package server

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the size of a huge page where pages have 4096 bytes, as they do on
// amd64 and mostly on arm64. Where it is another arenas have small pages.
const hugePage = 2 << 20

// mapArena maps a memory file at a place where huge pages fit.
func mapArena(fd int, size int64) ([]byte, error) {
	reserved, err := unix.MmapPtr(-1, 0, nil, uintptr(size)+hugePage, unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve addresses: %w", err)
	}
	skip := -uintptr(reserved) & (hugePage - 1)
	at := unsafe.Add(reserved, skip)
	mem, err := unix.MmapPtr(fd, 0, at, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED)
	if err != nil {
		_ = unix.MunmapPtr(reserved, uintptr(size)+hugePage) //nolint:errcheck // fails only for what is not mapped
		return nil, fmt.Errorf("map memory file: %w", err)
	}
	// What is left of the reservation on both sides.
	if skip > 0 {
		_ = unix.MunmapPtr(reserved, skip) //nolint:errcheck // see above
	}
	if tail := hugePage - skip; tail > 0 {
		_ = unix.MunmapPtr(unsafe.Add(at, size), tail) //nolint:errcheck // see above
	}
	return unsafe.Slice((*byte)(mem), size), nil
}

// unmapArena ends what mapArena made.
func unmapArena(mem []byte) {
	_ = unix.MunmapPtr(unsafe.Pointer(&mem[0]), uintptr(len(mem))) //nolint:errcheck // fails only for what is not mapped
}

// onHugePages puts the bytes of an arena on huge pages as far as the system has
// some, and returns how many bytes are on them. A drive whose requests have few
// segments moves as much from one huge page as from hundreds of small ones.
//
// It must come before the memory is pinned by anybody. It may copy what is there.
// Where shmem_enabled allows it (advise, always) the pages are huge from the
// beginning; else, but for deny, the kernel makes them from small ones.
func onHugePages(mem []byte) int64 {
	whole := mem[:len(mem)&^(hugePage-1)]
	if len(whole) == 0 {
		return 0
	}
	// Small pages serve as well: no failure matters.
	_ = unix.Madvise(whole, unix.MADV_HUGEPAGE)       //nolint:errcheck // see above
	_ = unix.Madvise(whole, unix.MADV_POPULATE_WRITE) //nolint:errcheck // see above
	if unix.Madvise(whole, unix.MADV_COLLAPSE) != nil {
		return 0
	}
	return int64(len(whole))
}

// hugeBytes returns how many bytes of a sealed arena are on huge pages.
func (a *arena) hugeBytes() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.huge
}

// hugeBytes returns how many bytes of the session's arenas are on huge pages.
func (s *session) hugeBytes() int64 {
	s.mu.Lock()
	arenas := slices.Clone(s.arenas)
	s.mu.Unlock()
	var sum int64
	for _, a := range arenas {
		if a != nil {
			sum += a.hugeBytes()
		}
	}
	return sum
}
