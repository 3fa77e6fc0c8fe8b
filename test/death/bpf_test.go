package death

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/mpool-go/mpool/test/daemon"
)

// watchedMap opens the kernel's map of the processes that the daemon watches, or
// returns nil if it has none.
func watchedMap(t *testing.T, d *daemon.Daemon) *ebpf.Map { return bpfMap(t, d, ebpf.Hash) }

// lostRecords returns how many deaths the daemon's ring has had no room for.
func lostRecords(t *testing.T, d *daemon.Daemon) (n uint64) {
	t.Helper()
	if err := bpfMap(t, d, ebpf.Array).Lookup(uint32(0), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// bpfMap opens the only map of a kind that the daemon has, or returns nil.
func bpfMap(t *testing.T, d *daemon.Daemon, kind ebpf.MapType) *ebpf.Map {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fdinfo", d.PID)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		b, err := os.ReadFile(dir + "/" + e.Name())
		if err != nil {
			continue // it is closed
		}
		var id ebpf.MapID
		for line := range strings.Lines(string(b)) {
			if n, ok := strings.CutPrefix(line, "map_id:"); ok {
				if _, err := fmt.Sscan(n, &id); err != nil {
					t.Fatal(err)
				}
			}
		}
		if id == 0 {
			continue
		}
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			t.Fatal(err)
		}
		if m.Type() == kind {
			t.Cleanup(func() { _ = m.Close() }) // it has nothing to lose
			return m
		}
		_ = m.Close() // it has nothing to lose
	}
	return nil
}

// entries counts what is in a map of the kernel's.
func entries(t *testing.T, m *ebpf.Map) (n int) {
	t.Helper()
	if m == nil {
		return 0
	}
	var process uint64
	var nothing uint8
	it := m.Iterate()
	for it.Next(&process, &nothing) {
		n++
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}
