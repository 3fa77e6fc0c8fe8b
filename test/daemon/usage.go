package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Usage is what the daemon has of the machine at one moment.
type Usage struct {
	Resident    int64          // bytes of memory that are there, shared ones included
	Shared      int64          // of these, shared memory: arenas
	Peak        int64          // the most that Resident ever was, since the start or ResetPeak
	Threads     int            // the daemon's own
	Workers     int            // threads that the kernel has for its io_uring
	Descriptors map[string]int // by what they are, such as "socket" or a path
	Processor   time.Duration  // time spent so far
}

// Count returns how many descriptors there are.
func (u Usage) Count() int {
	n := 0
	for _, k := range u.Descriptors {
		n += k
	}
	return n
}

// clockTick is the unit of /proc/PID/stat.
const clockTick = 10 * time.Millisecond

// Usage looks at the process. A process that is not there fails the test.
func (d *Daemon) Usage() Usage {
	d.tb.Helper()
	u, err := UsageOf(d.PID)
	if err != nil {
		d.tb.Fatalf("mpoold is gone: %v\n%s", err, d.Log())
	}
	return u
}

// UsageOf looks at any process of the user's.
func UsageOf(pid int) (Usage, error) {
	u := Usage{}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		if len(f) == 0 {
			continue
		}
		n, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			continue // a word
		}
		switch key {
		case "VmRSS":
			u.Resident = n << 10
		case "RssShmem":
			u.Shared = n << 10
		case "VmHWM":
			u.Peak = n << 10
		case "Threads":
			u.Threads = int(n)
		}
	}
	if u.Workers, err = kernelWorkers(pid); err != nil {
		return u, err
	}
	u.Threads -= min(u.Workers, u.Threads) // some may have begun meanwhile
	if u.Processor, err = processorTime(pid); err != nil {
		return u, err
	}
	u.Descriptors, err = descriptors(pid)
	return u, err
}

// kernelWorkers counts the threads that the kernel calls workers of an io_uring.
func kernelWorkers(pid int) (n int, err error) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range list {
		comm, err := os.ReadFile(dir + "/" + e.Name() + "/comm")
		if err == nil && strings.HasPrefix(string(comm), "iou-wrk-") {
			n++
		}
	}
	return n, nil
}

func processorTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may have spaces.
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(f) < 13 {
		return 0, fmt.Errorf("%d fields in /proc/%d/stat", len(f), pid)
	}
	user, err := strconv.ParseInt(f[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * clockTick, err
}

// numbers are the inode numbers in what a descriptor's link says.
var numbers = regexp.MustCompile(`:\[\d+\]$`)

func descriptors(pid int) (map[string]int, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	count := map[string]int{}
	for _, e := range entries {
		to, err := os.Readlink(dir + "/" + e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed just now
		}
		if err != nil {
			return nil, err
		}
		count[numbers.ReplaceAllString(to, "")]++
	}
	return count, nil
}

// ResetPeak makes Usage.Peak begin again.
func (d *Daemon) ResetPeak() {
	d.tb.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", d.PID), []byte("5"), 0); err != nil {
		d.tb.Fatal(err)
	}
}

// Load returns how much of a processor the daemon uses, over a time.
func (d *Daemon) Load(over time.Duration) float64 {
	d.tb.Helper()
	before, began := d.Usage().Processor, time.Now()
	time.Sleep(over) // what is measured
	return (d.Usage().Processor - before).Seconds() / time.Since(began).Seconds()
}
