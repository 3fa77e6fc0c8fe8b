package server

import (
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An arena lies where huge pages fit, is on them if the kernel makes any, and
// keeps what was written before; nothing of its address space is left.
func TestArenaOnHugePages(t *testing.T) {
	policy, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
	if err != nil || strings.Contains(string(policy), "[deny]") {
		t.Skipf("this system has no huge pages for memory files: %s %v", policy, err)
	}
	huge := int64(0)
	for _, size := range []int64{4096, hugePage, hugePage + 4096, 4 * hugePage} {
		before := spaceUsed(t)
		fd, err := unix.MemfdCreate("mpool-test", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Ftruncate(fd, size); err != nil {
			t.Fatal(err)
		}
		mem, err := mapArena(fd, size)
		if err != nil {
			t.Fatal(err)
		}
		if at := uintptr(unsafe.Pointer(&mem[0])); at%hugePage != 0 || len(mem) != int(size) {
			t.Errorf("%d bytes at %#x", len(mem), at)
		}
		for i := range mem {
			mem[i] = byte(i / 4096)
		}
		want := slices.Clone(mem)
		got := onHugePages(mem)
		huge += got
		if got != 0 && got != size&^(hugePage-1) {
			t.Errorf("%d bytes of %d are on huge pages", got, size)
		}
		if !slices.Equal(mem, want) {
			t.Errorf("%d bytes were not kept", size)
		}
		unmapArena(mem)
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
		if maps := spaceUsed(t); maps != before {
			t.Errorf("%d mappings of test memory, before %d", maps, before)
		}
	}
	if huge == 0 { // each may fail alone, for want of memory in one piece
		t.Error("none is on huge pages")
	}
}

// spaceUsed counts the mappings that an arena leaves if it is not unmapped.
func spaceUsed(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "memfd:mpool-test")
}
