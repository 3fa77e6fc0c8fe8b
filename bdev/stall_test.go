package bdev_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/bdev"
)

const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// frozenFile makes a file on a file system of its own that can be frozen:
// writes to it hang until it is thawed.
func frozenFile(t *testing.T) (path string, freeze, thaw func()) {
	t.Helper()
	_, at := mountLoop(t)
	dir, err := os.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	// The descriptor keeps it from now on, so that it goes with the process.
	if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	path = fmt.Sprintf("/proc/self/fd/%d/drive", dir.Fd())
	if err := os.WriteFile(path, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	frozen := false
	ioctl := func(what uint) {
		if err := unix.IoctlSetInt(int(dir.Fd()), what, 0); err != nil {
			t.Error(err)
		}
	}
	thaw = func() {
		if frozen {
			frozen = false
			ioctl(fiThaw)
		}
	}
	t.Cleanup(func() {
		thaw()
		dir.Close()
	})
	return path, func() { ioctl(fiFreeze); frozen = true }, thaw
}

// kernelWorkers counts this process's threads that io_uring made.
func kernelWorkers(t *testing.T) int {
	t.Helper()
	names, err := filepath.Glob("/proc/self/task/*/comm")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(b), "iou-wrk") {
			n++
		}
	}
	return n
}

// A drive that hangs holds nobody longer than his context: neither who waits
// for its operations, nor who waits for room in its queue. What it occupies is
// bounded. Another drive goes on. When it goes on, everything ends.
//
// proves S42
// proves S46
func TestStalledDrive(t *testing.T) {
	for _, kind := range engines {
		t.Run(kind.String(), func(t *testing.T) {
			const depth, workers, callers = 16, 4, 40
			path, freeze, thaw := frozenFile(t)
			d := open(t, path, bdev.OpenOptions{Engine: kind, QueueDepth: depth, MaxWorkers: workers})
			defer closeDrive(t, d)
			other := open(t, makeFile(t, t.TempDir(), testSize), bdev.OpenOptions{Engine: kind})
			defer closeDrive(t, other)
			freeze()

			var told sync.WaitGroup
			var detached, refused atomic.Int32
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			var all sync.WaitGroup
			for i := range callers {
				all.Go(func() {
					o := &bdev.Op{Code: bdev.OpWrite, Offset: int64(i) * 4096, Buf: bdev.AllocBuffer(4096)}
					told.Add(1)
					b := &bdev.Batch{Ops: []*bdev.Op{o}, Detached: func() {
						bdev.FreeBuffer(o.Buf)
						told.Done()
					}}
					err := d.Run(ctx, b)
					switch {
					case errors.Is(err, bdev.ErrDetached):
						detached.Add(1)
						return
					case errors.Is(err, context.Canceled):
						refused.Add(1)
					default:
						t.Errorf("write to a frozen drive: %v", err)
					}
					bdev.FreeBuffer(o.Buf)
					told.Done()
				})
			}
			for d.InFlight() < depth {
				runtime.Gosched()
			}
			cancel()
			all.Wait()
			if detached.Load() != depth || refused.Load() != callers-depth {
				t.Errorf("%d callers left operations behind, %d were not served; want %d and %d",
					detached.Load(), refused.Load(), depth, callers-depth)
			}
			if n := d.InFlight(); n != depth {
				t.Errorf("%d operations are under way, want %d", n, depth)
			}
			// For each thread that submitted; GOMAXPROCS and a few did.
			if n := kernelWorkers(t); n > workers*8 {
				t.Errorf("%d kernel threads hang", n)
			}
			if err := other.Run(context.Background(), readOp(t)); err != nil {
				t.Errorf("another drive: %v", err)
			}
			thaw()
			told.Wait()
			if err := d.Run(context.Background(), readOp(t)); err != nil {
				t.Errorf("after the stall: %v", err)
			}
		})
	}
}

func readOp(t *testing.T) *bdev.Batch {
	t.Helper()
	p := bdev.AllocBuffer(4096)
	t.Cleanup(func() { bdev.FreeBuffer(p) })
	return &bdev.Batch{Ops: []*bdev.Op{{Code: bdev.OpRead, Buf: p}}}
}

// Who waits for room leaves the queue in order when his context ends.
func TestQueueOfTheImpatientMovesOn(t *testing.T) {
	for _, kind := range engines {
		t.Run(kind.String(), func(t *testing.T) {
			path, freeze, thaw := frozenFile(t)
			d := open(t, path, bdev.OpenOptions{Engine: kind, QueueDepth: 4, MaxWorkers: 2})
			defer closeDrive(t, d)
			freeze()
			var all sync.WaitGroup
			for i := range 60 {
				all.Go(func() {
					ctx := context.Background()
					if i%3 == 0 {
						c, cancel := context.WithTimeout(ctx, time.Duration(i)*3*time.Millisecond)
						defer cancel()
						ctx = c
					}
					b := &bdev.Batch{}
					for j := range 3 {
						p := make([]byte, 8192)
						p = p[4096-int(addressOf(p)&4095):][:4096]
						b.Ops = append(b.Ops, &bdev.Op{Code: bdev.OpWrite, Offset: int64(i*3+j) * 4096, Buf: p})
					}
					err := d.Run(ctx, b)
					if i%3 != 0 && err != nil {
						t.Errorf("a patient caller: %v", err)
					}
					if err != nil && !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("caller %d: %v", i, err)
					}
				})
			}
			time.Sleep(100 * time.Millisecond) // let some of the contexts end first
			thaw()
			all.Wait()
			for d.InFlight() > 0 {
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// When the contexts of all who wait end at one moment, the lead goes from one
// who leaves to another, and still every operation is reaped.
func TestAllGiveUpTogether(t *testing.T) {
	const callers = 16
	path, freeze, thaw := frozenFile(t)
	// One worker, so that operations end one after another.
	d := open(t, path, bdev.OpenOptions{Engine: bdev.URing, MaxWorkers: 1})
	defer closeDrive(t, d)
	p := bdev.AllocBuffer(callers * 4096)
	defer bdev.FreeBuffer(p)
	for range 100 {
		freeze()
		ctx, cancel := context.WithCancel(context.Background())
		var left, told sync.WaitGroup
		for i := range callers {
			told.Add(1)
			left.Go(func() {
				b := &bdev.Batch{
					Ops:      []*bdev.Op{{Code: bdev.OpWrite, Offset: int64(i) * 4096, Buf: p[i*4096 : (i+1)*4096]}},
					Detached: told.Done,
				}
				if err := d.Run(ctx, b); !errors.Is(err, bdev.ErrDetached) {
					t.Errorf("write to a frozen drive: %v", err)
					told.Done()
				}
			})
		}
		for d.InFlight() < callers {
			runtime.Gosched()
		}
		cancel()
		left.Wait()
		thaw()
		told.Wait()
	}
}

// Whoever serves several drives by one queue, where there is no io_uring, does not
// wait for room with the one that hangs.
//
// proves S42
func TestQueueOfAStalledDrive(t *testing.T) {
	path, freeze, thaw := frozenFile(t)
	d := open(t, path, bdev.OpenOptions{Engine: bdev.Pread, QueueDepth: 4, MaxWorkers: 2})
	defer closeDrive(t, d)
	other := open(t, makeFile(t, t.TempDir(), testSize), bdev.OpenOptions{Engine: bdev.Pread})
	defer closeDrive(t, other)
	write := func(i int) *bdev.Op {
		return &bdev.Op{Code: bdev.OpWrite, Drive: d, Offset: int64(i) * 4096, Buf: alignedPage()}
	}
	freeze()
	var all sync.WaitGroup
	for i := range 8 { // some of them wait for room
		all.Go(func() {
			if err := d.Run(context.Background(), &bdev.Batch{Ops: []*bdev.Op{write(i)}}); err != nil {
				t.Error(err)
			}
		})
	}
	for d.InFlight() < 8 {
		runtime.Gosched()
	}
	q, err := bdev.NewQueue(nil, bdev.QueueOptions{Engine: bdev.Pread})
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(3*time.Minute, func() {
		t.Error("the queue waits for the drive that hangs")
		thaw()
	})
	q.Put(write(8))
	q.Put(&bdev.Op{Drive: other, Code: bdev.OpRead, Buf: alignedPage()})
	if n, err := q.Reap(1); n != 1 || err != nil {
		t.Errorf("reaped %d, %v", n, err)
	}
	if late.Stop() {
		thaw()
	}
	if n, err := q.Reap(1); n != 1 || err != nil {
		t.Errorf("reaped %d, %v", n, err)
	}
	all.Wait()
	// There is as much room as before.
	for i := range 8 {
		if err := d.Run(context.Background(), &bdev.Batch{Ops: []*bdev.Op{write(i)}}); err != nil {
			t.Error(err)
		}
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

// alignedPage returns memory for I/O.
func alignedPage() []byte {
	p := make([]byte, 8192)
	return p[-int(addressOf(p))&4095:][:4096]
}
