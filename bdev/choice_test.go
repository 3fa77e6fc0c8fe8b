package bdev_test

import (
	"os"
	"runtime"
	"testing"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/test/faultfs"
)

// Auto takes pread where io_uring would hand everything to kernel threads, and
// where it could write to a wrong place; a queue leaves the latter to the engine.
func TestAutoChoosesByDevice(t *testing.T) {
	memory, err := os.MkdirTemp("/dev/shm", "bdev-test-")
	if err != nil {
		t.Skipf("no file system in memory: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(memory) })
	for _, c := range []struct{ name, path, want string }{
		{"file on disk", makeFile(t, t.TempDir(), testSize), "io_uring"},
		{"file in memory", makeFile(t, memory, testSize), "pread"},
		{"file of FUSE", faultfs.New(t, testSize, faultfs.Options{}).Path, "pread"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, c.path, bdev.OpenOptions{})
			defer closeDrive(t, d)
			if d.EngineName() != c.want {
				t.Errorf("the engine is %s, want %s", d.EngineName(), c.want)
			}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			q, err := bdev.NewQueue(nil, bdev.QueueOptions{})
			if err != nil {
				t.Fatal(err)
			}
			p := bdev.AllocBuffer(4096)
			defer bdev.FreeBuffer(p)
			o := &bdev.Op{Drive: d, Code: bdev.OpWrite, Buf: p}
			q.Put(o)
			if n, err := q.Reap(1); n != 1 || err != nil || o.Err != nil {
				t.Errorf("a write over a queue: %d, %v, %v", n, err, o.Err)
			}
			if err := q.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
