package scope

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Machine is what there is to share.
type Machine struct {
	Memory      int64 // bytes
	Descriptors int64
}

// ThisMachine returns what this process may have: the machine's memory, or less by
// its control groups, and its limit of descriptors.
func ThisMachine() Machine {
	m := Machine{Memory: math.MaxInt64, Descriptors: math.MaxInt64}
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		m.Memory = int64(uint64(info.Totalram) * uint64(max(info.Unit, 1))) //nolint:unconvert // 32 bits elsewhere
	}
	if b, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		m.Memory = min(m.Memory, groupMemory("/sys/fs/cgroup", string(b)))
	}
	var files syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) == nil && files.Cur < math.MaxInt64 {
		m.Descriptors = int64(files.Cur)
	}
	return m
}

// groupMemory returns the least memory.max from the process's control group up.
func groupMemory(root, self string) int64 {
	least := int64(math.MaxInt64)
	for line := range strings.Lines(self) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for dir := filepath.Clean(group); ; dir = filepath.Dir(dir) {
			if b, err := os.ReadFile(filepath.Join(root, dir, "memory.max")); err == nil {
				if v, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
					least = min(least, v)
				}
			}
			if dir == "/" || dir == "." {
				break
			}
		}
	}
	return least
}
