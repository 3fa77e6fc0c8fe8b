package server

import (
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/ioctl"
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

// The counters say how much memory clients share, and how much of it is on huge
// pages, while they do.
func TestStatTellsHugePages(t *testing.T) {
	r := newRig(t)
	stat := func(w *raw) (all, huge uint64) {
		reply, ok := w.ok(ioctl.OpStat, &ioctl.StatAsk{}).(*ioctl.StatReply)
		if !ok {
			t.Fatal("no counters")
		}
		if s := r.srv.Snapshot(); s.ArenaBytes != int64(reply.Arenas) || s.HugeBytes != int64(reply.Huge) {
			t.Errorf("%d and %d bytes, or %d and %d", s.ArenaBytes, s.HugeBytes, reply.Arenas, reply.Huge)
		}
		return reply.Arenas, reply.Huge
	}
	w := r.raw()
	id, _, _ := w.arena(hugePage + 4096)
	if all, huge := stat(w); all != hugePage+4096 || huge != 0 {
		t.Errorf("an arena that is not used yet: %d bytes, %d on huge pages", all, huge)
	}
	w.ok(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: id})
	if all, huge := stat(w); all != hugePage+4096 || huge != 0 && huge != hugePage {
		t.Errorf("%d bytes, %d on huge pages", all, huge)
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
