package uring

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func newRing(t *testing.T, o Options) *Ring {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatalf("New(%+v): %v", o, err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

// enter submits everything that is pending and waits for n completions.
func enter(t *testing.T, r *Ring, n uint32) {
	t.Helper()
	for {
		_, err := r.Enter(r.Pending(), n, EnterGetEvents)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatalf("Enter: %v", err)
		}
	}
}

func TestNopsGoAround(t *testing.T) {
	r := newRing(t, Options{Entries: 8, Flags: SetupSubmitAll})
	if r.Entries() != 8 || r.CQEntries() != 16 {
		t.Fatalf("entries %d, %d", r.Entries(), r.CQEntries())
	}
	var next, seen uint64
	for range 100 {
		for {
			e := r.SQE()
			if e == nil {
				break
			}
			e.Opcode, e.UserData = OpNop, next
			next++
		}
		r.Publish()
		if r.Pending() != 8 {
			t.Fatalf("pending %d", r.Pending())
		}
		enter(t, r, 8)
		if r.Pending() != 0 || r.Ready() != 8 {
			t.Fatalf("pending %d, ready %d", r.Pending(), r.Ready())
		}
		var got [3]CQE
		for r.Ready() > 0 {
			for _, c := range got[:r.Reap(got[:])] {
				if c.UserData != seen || c.Res != 0 {
					t.Fatalf("completion %+v, want number %d", c, seen)
				}
				seen++
			}
		}
	}
}

func TestProbeKnowsReadsAndNotTheLast(t *testing.T) {
	r := newRing(t, Options{Entries: 2})
	ops, err := r.Probe()
	if err != nil {
		t.Fatal(err)
	}
	if !ops.Has(OpRead) || !ops.Has(OpWritev) || !ops.Has(OpFallocate) || ops.Has(255) {
		t.Fatalf("probe: %v", ops)
	}
	if err := r.LimitWorkers(4, 1); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownFlagIsUnsupported(t *testing.T) {
	_, err := New(Options{Entries: 2, Flags: 1 << 31})
	if !errors.Is(err, ErrUnsupported) || !errors.Is(err, unix.EINVAL) {
		t.Fatalf("New = %v", err)
	}
}

func TestRegisteredRingFilesAndBuffers(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := newRing(t, Options{Entries: 4, Flags: SetupSingleIssuer | SetupDeferTaskrun | SetupTaskrunFlag | SetupCoopTaskrun})
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("hello, ring"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mem, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	for _, step := range []func() error{
		r.RegisterRing,
		func() error { return r.RegisterFiles(4) },
		func() error { return r.SetFile(2, int(f.Fd())) },
		func() error { return r.RegisterBuffers(4) },
		func() error { return r.SetBuffer(3, mem) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	e := r.SQE()
	e.Opcode, e.Flags, e.FD, e.BufIndex = OpReadFixed, SQEFixedFile, 2, 3
	e.Addr, e.Len, e.Off = uint64(uintptr(unsafe.Pointer(&mem[4096]))), 4, 7
	r.Publish()
	enter(t, r, 1)
	var c [1]CQE
	if r.Reap(c[:]) != 1 || c[0].Res != 4 || string(mem[4096:4100]) != "ring" {
		t.Fatalf("completion %+v, memory %q", c, mem[4096:4100])
	}
	for _, step := range []func() error{
		func() error { return r.SetFile(2, -1) },
		func() error { return r.SetBuffer(3, nil) },
		r.UnregisterFiles, r.UnregisterBuffers, r.UnregisterRing,
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}

// With deferred task work a completion waits in the kernel, and the ring says so.
func TestNeedsEnterTellsOfDeferredWork(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := newRing(t, Options{Entries: 4, Flags: SetupSingleIssuer | SetupDeferTaskrun | SetupTaskrunFlag | SetupCoopTaskrun})
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	e := r.SQE()
	e.Opcode, e.FD, e.OpFlags = OpPollAdd, int32(p[0]), unix.POLLIN
	r.Publish()
	if _, err := r.Enter(1, 0, 0); err != nil {
		t.Fatal(err)
	}
	if r.NeedsEnter() || r.Ready() != 0 {
		t.Fatal("completed before its event")
	}
	if _, err := unix.Write(p[1], []byte{1}); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); !r.NeedsEnter(); runtime.Gosched() {
		if time.Since(start) > 3*time.Minute {
			t.Fatal("the ring never told of its event")
		}
	}
	enter(t, r, 0)
	if r.Ready() != 1 {
		t.Fatalf("ready %d", r.Ready())
	}
}
