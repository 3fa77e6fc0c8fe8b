package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/test/bench/measure"
)

// The ways by which two processes that do nothing else ask and answer each other.
const (
	floorSocket = "socket" // messages, and calls that wait in the kernel
	floorFutex  = "futex"  // a word each in shared memory
)

// floorBytes is about the size of a message about a credit.
const floorBytes = 200

// The words of the shared memory: what is asked, and what is answered.
const (
	floorAsks    = 0
	floorAnswers = 128
)

// floorWork has another process answer again and again: what it costs at least to be
// answered by another process, on this machine at this moment. The other one counts as
// the daemon.
func floorWork(_ context.Context, o *options) (*measure.Result, error) {
	mine, theirs, err := floorEnds(o.kind)
	if err != nil {
		return nil, fmt.Errorf("make a %s: %w", o.kind, err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	peer := exec.Command(self, "work", "floor-peer", "-kind", o.kind)
	peer.ExtraFiles, peer.Stderr = []*os.File{os.NewFile(uintptr(theirs), o.kind)}, os.Stderr
	peer.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no longer than this process
	if err := peer.Start(); err != nil {
		return nil, fmt.Errorf("start the other process: %w", err)
	}
	o.plan.Daemon = peer.Process.Pid
	r, err := floorAsk(o, mine)
	return r, errors.Join(err, peer.Process.Kill(), ignoreKilled(peer.Wait()))
}

// ignoreKilled drops the error of a process that was killed.
func ignoreKilled(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return nil
	}
	return err
}

// floorEnds returns the descriptors of what the two processes share.
func floorEnds(kind string) (mine, theirs int, err error) {
	if kind == floorFutex {
		fd, err := unix.MemfdCreate("mpool-bench", unix.MFD_CLOEXEC)
		if err == nil {
			err = unix.Ftruncate(fd, int64(os.Getpagesize()))
		}
		return fd, fd, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	return fds[0], fds[1], err
}

func floorAsk(o *options, fd int) (*measure.Result, error) {
	if o.kind == floorFutex {
		mem, err := floorMemory(fd)
		if err != nil {
			return nil, err
		}
		n := uint32(0)
		return measure.Run(o.plan, func(int) error {
			n++
			ring(mem, floorAsks, n)
			await(mem, floorAnswers, n-1)
			return nil
		})
	}
	buf := make([]byte, floorBytes)
	return measure.Run(o.plan, func(int) error {
		_, err := unix.Write(fd, buf)
		if err == nil {
			_, err = unix.Read(fd, buf)
		}
		return err
	})
}

// floorPeer is the other process. It ends when it is killed.
func floorPeer(_ context.Context, o *options) (*measure.Result, error) {
	const fd = 3
	if o.kind == floorFutex {
		mem, err := floorMemory(fd)
		if err != nil {
			return nil, err
		}
		for n := uint32(0); ; n++ {
			await(mem, floorAsks, n)
			ring(mem, floorAnswers, n+1)
		}
	}
	buf := make([]byte, floorBytes)
	for {
		n, err := unix.Read(fd, buf)
		if err == nil {
			_, err = unix.Write(fd, buf[:n])
		}
		if err != nil {
			return nil, fmt.Errorf("answer: %w", err)
		}
	}
}

func floorMemory(fd int) ([]byte, error) {
	mem, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map memory: %w", err)
	}
	return mem, nil
}

func word(mem []byte, at int) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&mem[at])) }

// The operations of futex(2), for words of several processes.
const (
	futexWait = 0
	futexWake = 1
)

// ring sets a word and wakes who waits for it.
func ring(mem []byte, at int, v uint32) {
	w := word(mem, at)
	w.Store(v)
	_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w)), futexWake, 1, 0, 0, 0) //nolint:errcheck // it fails only without memory
}

// await waits as long as a word holds a value.
func await(mem []byte, at int, v uint32) {
	for w := word(mem, at); w.Load() == v; {
		_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w)), futexWait, uintptr(v), 0, 0, 0) //nolint:errcheck // it is looked at again
	}
}
