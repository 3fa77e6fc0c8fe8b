package bdev_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/uring"
)

func addressOf(p []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(p))) }

// Where the kernel refuses io_uring, pread does the work, and who insists is
// told.
func TestRefusedRingFallsBack(t *testing.T) {
	path := makeFile(t, t.TempDir(), testSize)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The filter is the thread's; without an unlock it dies with it.
		runtime.LockOSThread()
		if err := denyRings(); err != nil {
			t.Errorf("seccomp: %v", err)
			return
		}
		if _, err := bdev.Open(context.Background(), nil, path, bdev.OpenOptions{Engine: bdev.URing}); !errors.Is(err, uring.ErrUnsupported) {
			t.Errorf("open with io_uring: %v", err)
		}
		d, err := bdev.Open(context.Background(), nil, path, bdev.OpenOptions{})
		if err != nil {
			t.Errorf("open: %v", err)
			return
		}
		if d.EngineName() != "pread" {
			t.Errorf("engine %s", d.EngineName())
		}
		if _, err := bdev.NewQueue(nil, bdev.QueueOptions{Engine: bdev.URing}); !errors.Is(err, uring.ErrUnsupported) {
			t.Errorf("queue with io_uring: %v", err)
		}
		q, err := bdev.NewQueue(nil, bdev.QueueOptions{})
		if err != nil {
			t.Errorf("queue: %v", err)
			return
		}
		p := bdev.AllocBuffer(4096)
		defer bdev.FreeBuffer(p)
		o := &bdev.Op{Drive: d, Code: bdev.OpRead, Buf: p}
		q.Put(o)
		if n, err := q.Reap(1); n != 1 || err != nil || o.Err != nil {
			t.Errorf("reap: %d, %v, %v", n, err, o.Err)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	<-done
}

// denyRings makes io_uring_setup fail with EPERM in this thread.
func denyRings() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the system call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_IO_URING_SETUP, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x00050000 | uint32(unix.EPERM)}, // SECCOMP_RET_ERRNO
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000},                      // SECCOMP_RET_ALLOW
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
}

// Operations survive the thread that submitted them.
func TestThreadsMayEnd(t *testing.T) {
	path := makeFile(t, t.TempDir(), testSize)
	d := open(t, path, bdev.OpenOptions{Engine: bdev.URing})
	defer closeDrive(t, d)
	var ended sync.WaitGroup
	for range 20 {
		ended.Add(16)
		exited := make(chan struct{})
		go func() {
			defer close(exited)
			runtime.LockOSThread() // and no unlock: the thread ends
			ops := make([]*bdev.Op, 16)
			for i := range ops {
				p := bdev.AllocBuffer(64 << 10)
				ops[i] = &bdev.Op{Code: bdev.OpWrite, Offset: int64(i) << 16, Buf: p, OnDone: func(o *bdev.Op) {
					if o.Err != nil {
						t.Errorf("write: %v", o.Err)
					}
					bdev.FreeBuffer(p)
					ended.Done()
				}}
			}
			d.Start(ops...)
		}()
		<-exited
	}
	ended.Wait()
}

// A device that ends early is an error, not a short success.
func TestTruncatedFile(t *testing.T) {
	for _, kind := range engines {
		path := makeFile(t, t.TempDir(), testSize)
		d := open(t, path, bdev.OpenOptions{Engine: kind})
		for _, size := range []int64{testSize / 2, testSize/2 + 8192, testSize/2 + 100} {
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
			p := bdev.AllocBuffer(64 << 10)
			o := &bdev.Op{Code: bdev.OpRead, Offset: testSize / 2, Buf: p}
			if err := d.Run(context.Background(), &bdev.Batch{Ops: []*bdev.Op{o}}); !errors.Is(err, syscall.EIO) {
				t.Errorf("%v: read past the end of a file of %d: %v", kind, size, err)
			}
			bdev.FreeBuffer(p)
		}
		closeDrive(t, d)
	}
}

func TestClosedDrive(t *testing.T) {
	for _, kind := range engines {
		d := open(t, makeFile(t, t.TempDir(), testSize), bdev.OpenOptions{Engine: kind})
		closeDrive(t, d)
		if err := d.Run(context.Background(), readOp(t)); !errors.Is(err, bdev.ErrClosed) {
			t.Errorf("%v: read of a closed drive: %v", kind, err)
		}
		o := readOp(t).Ops[0]
		d.Start(o)
		if !errors.Is(o.Err, bdev.ErrClosed) {
			t.Errorf("%v: start on a closed drive: %v", kind, o.Err)
		}
		if err := d.Flush(context.Background(), d.Ticket()); !errors.Is(err, bdev.ErrFlushFailed) {
			t.Errorf("%v: flush of a closed drive: %v", kind, err)
		}
		if err := d.Close(); !errors.Is(err, bdev.ErrClosed) {
			t.Errorf("%v: second close: %v", kind, err)
		}
	}
}

// A batch and its operations may be used again and again without allocating.
func TestRunDoesNotAllocate(t *testing.T) {
	if checkedBuild {
		t.Skip("checked builds allocate")
	}
	for _, kind := range engines {
		d := open(t, makeFile(t, t.TempDir(), testSize), bdev.OpenOptions{Engine: kind})
		p := bdev.AllocBuffer(8192)
		b := &bdev.Batch{Ops: []*bdev.Op{
			{Code: bdev.OpRead, Buf: p[:4096]},
			{Code: bdev.OpRead, Offset: 4096, Vec: [][]byte{p[4096:]}},
		}}
		run := func() {
			if err := d.Run(context.Background(), b); err != nil {
				t.Fatal(err)
			}
		}
		run()
		// The pread engine starts goroutines and makes vectors.
		if n := testing.AllocsPerRun(200, run); n > 0 && kind == bdev.URing {
			t.Errorf("%v: %v allocations for a batch", kind, n)
		}
		bdev.FreeBuffer(p)
		closeDrive(t, d)
	}
}
