package bdev_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails when goroutines or descriptors are left over.
func TestMain(m *testing.M) {
	before := descriptors()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		// The kernel may close what a thread held a moment later.
		for end := time.Now().Add(time.Minute); descriptors() > before && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		if after := descriptors(); after > before {
			fmt.Fprintf(os.Stderr, "%d descriptors at the start, %d at the end\n", before, after)
			code = 1
		}
	}
	os.Exit(code)
}

func descriptors() int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	n := 0
	for _, e := range names {
		// The runtime opens its poller's once, at the first need.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" {
			n++
		}
	}
	return n
}
