package bdev

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestMountOf(t *testing.T) {
	const text = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 7:3 / /mnt/with\040space rw - ext4 /dev/loop3 rw
31 22 0:30 / /mnt/b rw shared:5 master:2 - btrfs /dev/nosuch rw
short line
`
	for _, c := range []struct {
		devs []string
		want string
	}{
		{[]string{"254:0"}, "/"},
		{[]string{"9:9", "7:3"}, "/mnt/with space"},
		{[]string{"7:33"}, ""},
		{nil, ""},
	} {
		if got := mountOf(text, c.devs); got != c.want {
			t.Errorf("mountOf(%v) = %q, want %q", c.devs, got, c.want)
		}
	}
}

func FuzzMountOf(f *testing.F) {
	f.Add("30 22 7:3 / /mnt/with\\040space rw - ext4 /dev/loop3 rw\n")
	f.Add("30 22 7:3 / \\04 rw -\n- - -\n\\")
	f.Fuzz(func(_ *testing.T, text string) {
		_ = mountOf(text, []string{"7:3"})
		_ = swapUses(text, []string{"7:3"})
	})
}

func TestSwapUses(t *testing.T) {
	// Of what is no block device there is no number.
	text := "Filename Type Size Used Priority\n/etc/passwd partition 1 0 -2\n/swapfile file 1 0 -3\nx\n"
	if swapUses(text, []string{"", "7:3"}[1:]) {
		t.Error("a device was found that is not there")
	}
	devs, err := filepath.Glob("/sys/block/*/dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, dev := range devs {
		name := "/dev/" + filepath.Base(filepath.Dir(dev))
		if num := deviceNumber(name); num != "" {
			if !swapUses(name+" partition 1 0 -2\n", []string{num}) {
				t.Errorf("%s, %s is not found", name, num)
			}
			return
		}
	}
}

func TestRoomIsServedInOrder(t *testing.T) {
	r := room{total: 4}
	if n := r.take(3); n != 3 {
		t.Fatalf("took %d", n)
	}
	a := r.wait(3)
	b := r.wait(1)
	if n := r.take(1); n != 0 {
		t.Fatalf("%d places past those who wait", n)
	}
	r.give(1)
	if a.granted != 2 || !a.done.IsDone() || b.done.IsDone() {
		t.Fatalf("granted %d and %d", a.granted, b.granted)
	}
	r.leave(a) // gives back what it was granted
	if b.granted != 1 || r.used != 3 {
		t.Fatalf("granted %d, used %d", b.granted, r.used)
	}
	c := r.wait(1)
	d := r.wait(1)
	r.leave(c)
	r.give(1)
	if d.granted != 1 || c.granted != 0 || len(r.waiting) != 0 {
		t.Fatalf("granted %d to who left, %d to who stayed", c.granted, d.granted)
	}
}

// opens makes a drive over a file, past Open, to get at its engine.
func opens(t *testing.T, kind EngineKind) (*Drive, Engine) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "drive")
	if err := os.WriteFile(path, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open(context.Background(), nil, path, OpenOptions{Engine: kind, QueueDepth: 8, MaxWorkers: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, d.engine
}

// Bulk operations take at most half of the workers, so that others find one.
func TestBulkLeavesWorkers(t *testing.T) {
	var w workers
	var running, most atomic.Int32
	release := make(chan struct{})
	started := make(chan bool, 64)
	w.init(4, 64, func(o *Op) error {
		started <- o.Bulk
		if o.Bulk {
			most.Store(max(most.Load(), running.Add(1)))
			<-release
			running.Add(-1)
		}
		return nil
	})
	d := NewDrive(nil, &fakeEngine{})
	var ended sync.WaitGroup
	ops := make([]*Op, 20)
	for i := range ops {
		ended.Add(1)
		ops[i] = &Op{Drive: d, Code: OpFlush, Bulk: i < 10, OnDone: func(*Op) { ended.Done() }}
	}
	w.start(context.Background(), ops[:10])
	for range 2 {
		<-started
	}
	w.start(context.Background(), ops[10:])
	for range 10 { // they end although bulk ones hang
		if <-started {
			t.Fatal("a third bulk operation runs")
		}
	}
	close(release)
	ended.Wait()
	if most.Load() != 2 {
		t.Errorf("%d bulk operations at a time", most.Load())
	}
	if err := w.close(); err != nil {
		t.Error(err)
	}
}

// A discard that io_uring lacks goes through an ioctl, at the first time when
// the error comes back, then at once; beside others on the ring.
func TestDiscardByIoctl(t *testing.T) {
	d, engine := opens(t, URing)
	e := engine.(*uringEngine)
	// A file takes every discard; made to look like a block device it fails
	// both ways, as a block device that cannot discard does.
	e.dev.geo.Regular = false
	defer func() { e.dev.geo.Regular = true }()
	p := AllocBuffer(4096)
	defer FreeBuffer(p)
	for i := range 3 {
		bad := &Op{Code: OpDiscard, Length: 4096}
		good := &Op{Code: OpRead, Buf: p}
		if err := d.Run(context.Background(), &Batch{Ops: []*Op{bad, good}}); err == nil || good.Err != nil {
			t.Errorf("discard %v, read %v", bad.Err, good.Err)
		}
		if !e.dev.plainDiscard.Load() {
			t.Errorf("round %d: the refusal was forgotten", i)
		}
		// Alone, with nothing on the ring to wait for.
		if err := d.Run(context.Background(), &Batch{Ops: []*Op{bad}}); err == nil {
			t.Error("discard of a file as if it were a block device")
		}
	}
}

// The number of operations in the kernel is bounded by the engine's depth, so
// that the completion queue always has room.
//
// proves S42
func TestDepthBoundsTheRing(t *testing.T) {
	d, engine := opens(t, URing)
	e := engine.(*uringEngine)
	var most atomic.Int64
	var ended sync.WaitGroup
	for i := range 10 {
		ended.Add(20)
		ops := make([]*Op, 20)
		for j := range ops {
			p := AllocBuffer(4096)
			ops[j] = &Op{Code: OpRead, Offset: int64(i*20+j) * 4096, Buf: p, OnDone: func(*Op) {
				e.mu.Lock()
				most.Store(max(most.Load(), int64(e.underWayLocked())))
				e.mu.Unlock()
				FreeBuffer(p)
				ended.Done()
			}}
		}
		go d.Start(ops...)
	}
	ended.Wait()
	if n := most.Load(); n > 8 {
		t.Errorf("%d operations in the kernel", n)
	}
	if depth := e.ring.CQEntries(); depth < 2*8 {
		t.Errorf("a completion queue of %d for 8 operations", depth)
	}
}

// aroundEngine is an Engine around another: it ends flushes itself, later, and
// so waits with nothing on the ring.
type aroundEngine struct{ Engine }

func (e aroundEngine) Start(ops []*Op) {
	for _, o := range ops {
		if o.Code == OpFlush {
			go o.Complete(syscall.EIO)
			continue
		}
		e.Engine.Start([]*Op{o})
	}
}

func TestEngineAroundAnother(t *testing.T) {
	for _, kind := range []EngineKind{URing, Pread} {
		inner, _ := opens(t, kind)
		d := NewDrive(nil, aroundEngine{inner.engine})
		var all sync.WaitGroup
		for i := range int64(8) {
			all.Go(func() {
				p := AllocBuffer(4096)
				defer FreeBuffer(p)
				for range 50 {
					ops := []*Op{{Code: OpFlush}, {Code: OpRead, Offset: i * 4096, Buf: p}}
					if err := d.Run(context.Background(), &Batch{Ops: ops[i%2:]}); (err == nil) != (i%2 == 1) {
						t.Errorf("run: %v", err)
					}
					if err := d.Run(context.Background(), &Batch{Ops: ops[:1]}); err == nil {
						t.Error("a flush was to fail")
					}
				}
			})
		}
		all.Wait()
	}
}

// A word in shared memory ends a queue's sleep.
func TestQueueWaitsForAWord(t *testing.T) {
	mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	onQueue(t, QueueOptions{Words: 2}, func(q Queue) {
		w := q.(WordWaiter)
		word := wordOf(mem)
		for i := range uint32(50) {
			var got error
			told := 0
			done := func(err error) { got, told = err, told+1 }
			if !w.WaitWord(word, i, done) {
				t.Fatal("refused")
			}
			go func() {
				atomic.AddUint32(word, 1)
				wakeWord(word)
			}()
			for told == 0 {
				if _, err := q.(Waker).Sleep(); err != nil {
					t.Fatal(err)
				}
			}
			// EAGAIN: the word changed before the kernel looked.
			if told != 1 || (got != nil && !errors.Is(got, syscall.EAGAIN)) {
				t.Fatalf("told %d times, %v", told, got)
			}
		}
		taken, ended := 0, 0
		for w.WaitWord(word, 50, func(err error) {
			if !errors.Is(err, syscall.ECANCELED) {
				t.Errorf("a wait that was ended: %v", err)
			}
			ended++
		}) {
			taken++
		}
		if taken != 2 {
			t.Errorf("%d waits were taken, want 2", taken)
		}
		// The word keeps its value, and nobody wakes its futex.
		for w.EndWait(word); ended < taken; {
			if _, err := q.(Waker).Sleep(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func wakeWord(word *uint32) {
	const wake = 1 // FUTEX_WAKE, shared
	syscall.Syscall6(unix.SYS_FUTEX, wordAddress(word), wake, 1, 0, 0, 0)
}

func wordOf(mem []byte) *uint32 { return (*uint32)(unsafe.Pointer(&mem[0])) }

func wordAddress(word *uint32) uintptr { return uintptr(unsafe.Pointer(word)) }

// onQueue calls fn with a ring queue on a thread of its own.
func onQueue(t *testing.T, o QueueOptions, fn func(q Queue)) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	o.Engine = URing
	q, err := NewQueue(nil, o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}()
	fn(q)
}

// A queue used on another thread says so.
func TestQueueOfAnotherThread(t *testing.T) {
	d, _ := opens(t, URing)
	onQueue(t, QueueOptions{}, func(q Queue) {
		p := AllocBuffer(4096)
		defer FreeBuffer(p)
		q.Put(&Op{Drive: d, Code: OpRead, Buf: p})
		done := make(chan error)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			_, err := q.Reap(1)
			done <- err
		}()
		if err := <-done; err == nil || !strings.Contains(err.Error(), "LockOSThread") {
			t.Errorf("reap on another thread: %v", err)
		}
		if n, err := q.Reap(1); n != 1 || err != nil {
			t.Errorf("reap on its own thread: %d, %v", n, err)
		}
	})
}

// A queue on the ring takes drives that a ring cannot use: through their engines.
func TestQueueOverForeignEngine(t *testing.T) {
	inner, _ := opens(t, URing)
	d := NewDrive(nil, aroundEngine{inner.engine})
	onQueue(t, QueueOptions{Depth: 16}, func(q Queue) {
		p := AllocBuffer(16 * 4096)
		defer FreeBuffer(p)
		for range 50 {
			flushes := 0
			for i := range 16 {
				o := &Op{Drive: d, Code: OpRead, Offset: int64(i) * 4096, Buf: p[i*4096 : (i+1)*4096]}
				switch i % 3 {
				case 0:
					o = &Op{Drive: d, Code: OpFlush, OnDone: func(o *Op) {
						if o.Err != nil {
							flushes++
						}
					}}
				case 1:
					o.Drive = inner // this one on the ring
				}
				q.Put(o)
			}
			for q.InFlight() > 0 {
				if _, err := q.Reap(3); err != nil {
					t.Fatal(err)
				}
			}
			if flushes != 6 {
				t.Fatalf("%d flushes failed, want all 6", flushes)
			}
		}
	})
}

// A flush that failed in any way is not tried again, but for one that never
// began; other operations are, a bounded number of times.
//
// proves S40
func TestSettle(t *testing.T) {
	d := NewDrive(nil, &fakeEngine{})
	for _, c := range []struct {
		code  OpCode
		n     int
		err   error
		again bool
		want  error
	}{
		{OpFlush, 0, nil, false, nil},
		{OpFlush, 0, syscall.EIO, false, syscall.EIO},
		{OpFlush, 0, syscall.EINTR, false, syscall.EINTR},
		{OpFlush, 0, syscall.EAGAIN, false, syscall.EAGAIN},
		{OpFlush, 0, syscall.ECANCELED, true, nil},
		{OpDiscard, 0, syscall.EINTR, true, nil},
		{OpWrite, 0, syscall.EAGAIN, true, nil},
		{OpWrite, 0, syscall.ENOSPC, false, syscall.ENOSPC},
		{OpWrite, 4096, nil, false, nil},
		{OpWrite, 1024, nil, true, nil},
		{OpWrite, 0, nil, false, syscall.EIO},
		{OpRead, 1000, nil, false, syscall.EIO},
	} {
		o := &Op{Drive: d, Code: c.code, Buf: make([]byte, 4096)}
		again, err := o.settle(c.n, c.err)
		if again != c.again || !errors.Is(err, c.want) {
			t.Errorf("%v after %d, %v: again %v, %v", c.code, c.n, c.err, again, err)
		}
		tries := 1
		for again && c.err != nil {
			again, err = o.settle(c.n, c.err)
			tries++
		}
		if tries > maxRetries+1 || (tries > 1 && !errors.Is(err, c.err)) {
			t.Errorf("%v: %d tries at %v, then %v", c.code, tries, c.err, err)
		}
	}
}

// Where more was forced in than there is room for, nobody gets less than none.
func TestRoomIsNeverLessThanNone(t *testing.T) {
	r := room{total: 1, used: 3}
	if n := r.take(1); n != 0 || r.used != 3 {
		t.Errorf("%d places, %d are used", n, r.used)
	}
	r.give(2)
	if n := r.take(1); n != 0 {
		t.Errorf("%d places", n)
	}
	r.give(1)
	if n := r.take(1); n != 1 {
		t.Errorf("%d places, want the one there is", n)
	}
}
