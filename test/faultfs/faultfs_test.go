package faultfs_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/test/bdevtest"
	"github.com/mpool-go/mpool/test/faultfs"
	"github.com/mpool-go/mpool/test/loopdev"
)

const size = bdevtest.MinSize

var long = flag.Bool("faultfs.long", false, "the conformance suite in all combinations")

// mountEnv makes this binary one that mounts a drive and waits to be killed.
const mountEnv = "FAULTFS_TEST_MOUNT"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, path string, kind bdev.EngineKind) *bdev.Drive {
	t.Helper()
	d, err := bdev.Open(context.Background(), nil, path, bdev.OpenOptions{Engine: kind, QueueDepth: 64, MaxWorkers: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil && !errors.Is(err, bdev.ErrClosed) {
			t.Error(err)
		}
	})
	return d
}

func run(d *bdev.Drive, o bdev.Op) error {
	return d.Run(context.Background(), &bdev.Batch{Ops: []*bdev.Op{&o}})
}

// buffer is memory for I/O that holds b throughout.
func buffer(t *testing.T, b byte, n int) []byte {
	t.Helper()
	buf := bdev.AllocBuffer(n)
	t.Cleanup(func() { bdev.FreeBuffer(buf) })
	copy(buf, bytes.Repeat([]byte{b}, n))
	return buf
}

// A drive of this package is a drive as any other: as a file and under a loop
// device, by both engines.
func TestConformance(t *testing.T) {
	for _, c := range []struct {
		kind   bdev.EngineKind
		sector int // of a loop device; 0: the bare file
		long   bool
	}{
		{bdev.Pread, 0, false},
		{bdev.URing, 512, false},
		{bdev.URing, 0, true},
		{bdev.URing, 4096, true},
		{bdev.Pread, 4096, true},
	} {
		if c.long && !*long {
			continue
		}
		t.Run(fmt.Sprintf("%v/%d", c.kind, c.sector), func(t *testing.T) {
			path := faultfs.New(t, size, faultfs.Options{}).Path
			if c.sector != 0 {
				path = loopdev.New(t, 0, loopdev.Options{Backing: path, SectorSize: c.sector}).Path
			}
			bdevtest.Run(t, func(t *testing.T) *bdev.Drive {
				t.Helper()
				d, err := bdev.Open(context.Background(), nil, path, bdev.OpenOptions{Engine: c.kind, QueueDepth: 64, MaxWorkers: 8})
				if err != nil {
					t.Fatal(err)
				}
				return d
			})
		})
	}
}

// Injected errors arrive as they are, where they were asked for, through a file
// and through a loop device.
func TestErrors(t *testing.T) {
	for _, loop := range []bool{false, true} {
		t.Run(fmt.Sprintf("loop=%v", loop), func(t *testing.T) {
			f := faultfs.New(t, size, faultfs.Options{})
			path := f.Path
			if loop {
				path = loopdev.New(t, 0, loopdev.Options{Backing: path, SectorSize: 4096}).Path
			}
			d := open(t, path, bdev.Auto)
			buf := buffer(t, 1, 8192)
			f.Disk().Inject(
				sim.Fault{Code: bdev.OpWrite, From: 8192, To: 12288, Err: syscall.EIO, Count: 1},
				sim.Fault{Code: bdev.OpRead, From: 65536, To: 65537, Err: syscall.EIO},
				sim.Fault{Code: bdev.OpFlush, Err: syscall.EIO, Count: 1},
				sim.Fault{Code: bdev.OpWrite, From: 131072, To: 139264, Err: syscall.ENOSPC},
			)
			for _, c := range []struct {
				op   bdev.Op
				want error
			}{
				{bdev.Op{Code: bdev.OpWrite, Offset: 0, Buf: buf}, nil},
				{bdev.Op{Code: bdev.OpWrite, Offset: 8192, Buf: buf}, syscall.EIO},
				{bdev.Op{Code: bdev.OpWrite, Offset: 8192, Buf: buf}, nil},
				{bdev.Op{Code: bdev.OpRead, Offset: 61440, Buf: buf}, syscall.EIO},
				{bdev.Op{Code: bdev.OpRead, Offset: 69632, Buf: buf}, nil},
				{bdev.Op{Code: bdev.OpFlush}, syscall.EIO},
				{bdev.Op{Code: bdev.OpFlush}, nil},
				{bdev.Op{Code: bdev.OpWrite, Offset: 131072, Buf: buf}, syscall.ENOSPC},
			} {
				if err := run(d, c.op); !errors.Is(err, c.want) {
					t.Errorf("%v at %d: %v, want %v", c.op.Code, c.op.Offset, err, c.want)
				}
			}
			f.Disk().Vanish()
			if err := run(d, bdev.Op{Code: bdev.OpRead, Buf: buf}); err == nil {
				t.Error("a device that has vanished reads")
			}
		})
	}
}

// A write that is cut short is a short write to its caller: a whole one takes
// several calls, and one write(2) says how much it took. (Asynchronous ones are
// EIO: the kernel's FUSE says so.)
func TestShortWrites(t *testing.T) {
	f := faultfs.New(t, size, faultfs.Options{})
	fd, err := unix.Open(f.Path, unix.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	buf := buffer(t, 2, 65536)
	f.Shorten(1)
	if n, err := unix.Pwrite(fd, buf, 0); n != 32768 || err != nil {
		t.Errorf("wrote %d, %v; want 32768", n, err)
	}
	if n, err := unix.Pwrite(fd, buf, 0); n != 65536 || err != nil {
		t.Errorf("wrote %d, %v; want 65536", n, err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	d := open(t, f.Path, bdev.Pread)
	f.Shorten(-1)
	if err := run(d, bdev.Op{Code: bdev.OpWrite, Offset: 65536, Buf: buf}); err != nil {
		t.Errorf("a write in pieces: %v", err)
	}
	got := make([]byte, 65536)
	if _, err := f.Disk().ReadAt(got, 65536); err != nil || !bytes.Equal(got, buf) {
		t.Errorf("what was written in pieces is not there: %v", err)
	}
}

// What matches a stall hangs until it is released, or for its time; the rest
// goes on.
func TestStalls(t *testing.T) {
	for _, kind := range []bdev.EngineKind{bdev.URing, bdev.Pread} {
		t.Run(kind.String(), func(t *testing.T) {
			f := faultfs.New(t, size, faultfs.Options{})
			path := f.Path
			if kind == bdev.URing {
				path = loopdev.New(t, 0, loopdev.Options{Backing: path, SectorSize: 4096}).Path
			}
			d := open(t, path, kind)
			buf := buffer(t, 3, 4096)
			release := f.Stall(faultfs.Stall{Code: bdev.OpWrite, From: 4096, To: 8192})
			done := make(chan error, 1)
			go func() { done <- run(d, bdev.Op{Code: bdev.OpWrite, Offset: 4096, Buf: buf}) }()
			f.Waiting(t, 1)
			defer release() // also if the test fails: nobody else can end what hangs
			other := buffer(t, 4, 4096)
			if err := run(d, bdev.Op{Code: bdev.OpWrite, Offset: 8192, Buf: other}); err != nil {
				t.Error(err)
			}
			if err := run(d, bdev.Op{Code: bdev.OpRead, Offset: 8192, Buf: other}); err != nil {
				t.Error(err)
			}
			select {
			case err := <-done:
				t.Errorf("the write did not hang: %v", err)
			default:
			}
			release()
			if err := <-done; err != nil {
				t.Error(err)
			}
			f.Stall(faultfs.Stall{Code: bdev.OpFlush, For: 50 * time.Millisecond})
			start := time.Now()
			if err := run(d, bdev.Op{Code: bdev.OpFlush}); err != nil || time.Since(start) < 50*time.Millisecond {
				t.Errorf("a flush that hangs for 50 ms took %v, %v", time.Since(start), err)
			}
		})
	}
}

// What was flushed survives a power cut, what was not may be lost.
func TestPowerCut(t *testing.T) {
	f := faultfs.New(t, size, faultfs.Options{})
	d := open(t, f.Path, bdev.Auto)
	if err := errors.Join(
		run(d, bdev.Op{Code: bdev.OpWrite, Offset: 4096, Buf: buffer(t, 5, 4096)}),
		run(d, bdev.Op{Code: bdev.OpFlush}),
		run(d, bdev.Op{Code: bdev.OpWrite, Offset: 8192, Buf: buffer(t, 6, 4096)}),
		d.Close()); err != nil {
		t.Fatal(err)
	}
	cut := f.PowerCut(t, rand.New(rand.NewPCG(1, 1)), sim.CutOptions{Mode: sim.CutNone})
	if cut.Lost != 1 {
		t.Errorf("%v", cut)
	}
	got := buffer(t, 0, 8192)
	if err := run(open(t, f.Path, bdev.Auto), bdev.Op{Code: bdev.OpRead, Offset: 4096, Buf: got}); err != nil {
		t.Fatal(err)
	}
	if got[0] != 5 || got[4096] != 0 {
		t.Errorf("after a power cut: %d and %d, want 5 and 0", got[0], got[4096])
	}
}

// Without its connection the file fails every operation, also one that hangs.
func TestAbort(t *testing.T) {
	f := faultfs.New(t, size, faultfs.Options{})
	d := open(t, f.Path, bdev.Pread)
	buf := buffer(t, 7, 4096)
	f.Stall(faultfs.Stall{Code: bdev.OpRead})
	done := make(chan error, 1)
	go func() { done <- run(d, bdev.Op{Code: bdev.OpRead, Buf: buf}) }()
	f.Waiting(t, 1)
	f.Abort(t)
	if err := <-done; err == nil {
		t.Error("a read that hung succeeds")
	}
	if err := run(d, bdev.Op{Code: bdev.OpWrite, Buf: buf}); err == nil {
		t.Error("a write succeeds")
	}
}

// A killed test process leaves nothing behind: no mount, no loop device, no
// folder, although an operation hangs.
func TestKilled(t *testing.T) {
	loopdev.RequireRoot(t)
	if os.Getenv(mountEnv) != "" {
		mountAndHang(t)
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), mountEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir, backing string
	if _, err := fmt.Fscanln(out, &dir, &backing); err != nil {
		t.Fatal(err)
	}
	if !mounted(t, dir) {
		t.Errorf("%s is not mounted while the process lives", dir)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // "signal: killed" is what is wanted
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		_, err := os.Stat(dir)
		b, lerr := os.ReadFile(backing)
		gone := errors.Is(err, os.ErrNotExist) && !mounted(t, dir) && (lerr != nil || !strings.Contains(string(b), dir))
		if gone {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("left behind: %s (%v), mounted %v, loop device over %q (%v)", dir, err, mounted(t, dir), b, lerr)
		}
	}
}

func mountAndHang(t *testing.T) {
	t.Helper()
	f := faultfs.New(t, size, faultfs.Options{})
	loop := loopdev.New(t, 0, loopdev.Options{Backing: f.Path})
	d := open(t, loop.Path, bdev.Auto)
	f.Stall(faultfs.Stall{Code: bdev.OpWrite})
	buf := buffer(t, 8, 4096)
	go func() { _ = run(d, bdev.Op{Code: bdev.OpWrite, Buf: buf}) }() // it never ends
	f.Waiting(t, 1)
	fmt.Println(filepath.Dir(f.Path), filepath.Join("/sys/block", filepath.Base(loop.Path), "loop/backing_file"))
	select {}
}

func mounted(t *testing.T, dir string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), dir+" ")
}
