package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// Descriptors that a victim is started with.
const (
	victimSays   = 3 // it writes a byte when it is ready
	victimSocket = 4 // one end of a socket pair, which it holds; victims of a storm have none
)

// victimFlight is how many requests of a victim are in flight.
const victimFlight = 16

// clientVictimWork holds handles, uncommitted mblocks and memory until it is
// killed, or its standard input ends.
func clientVictimWork(ctx context.Context, o *options) (*measure.Result, error) {
	c, err := o.connect(ctx)
	if err != nil {
		return nil, err
	}
	if c, err = c.open(ctx); err != nil {
		return nil, err
	}
	memory := make(chan error, 1)
	go func() { memory <- occupy(o.size) }()
	err = errors.Join(c.hold(ctx, o.objects), <-memory)
	if err != nil {
		return nil, err
	}
	if o.kind == "child" {
		if err := fork(); err != nil {
			return nil, err
		}
	}
	if _, err := unix.Write(victimSays, []byte{1}); err != nil {
		return nil, fmt.Errorf("say ready: %w", err)
	}
	_, err = os.Stdin.Read(make([]byte, 1)) // it is killed before, or nobody is left to kill it
	return nil, fmt.Errorf("not killed: %w", err)
}

// occupy makes so many bytes of memory resident, in small pages.
func occupy(size int64) error {
	if size == 0 {
		return nil
	}
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		err = unix.Madvise(mem, unix.MADV_NOHUGEPAGE) // before there are pages
	}
	if err != nil {
		return fmt.Errorf("occupy memory: %w", err)
	}
	const part = 64 << 20 // several at a time
	return parallel(int((size+part-1)/part), func(i int) error {
		from := i * part
		if err := unix.Madvise(mem[from:min(from+part, len(mem))], unix.MADV_POPULATE_WRITE); err != nil {
			return fmt.Errorf("occupy memory: %w", err)
		}
		return nil
	})
}

// hold takes a handle on so many committed mblocks, and writes to some that it
// does not commit.
func (c *connection) hold(ctx context.Context, handles int64) error {
	var ids []layout.ObjectID
	for id, err := range committed(ctx, c.pool) {
		if err != nil {
			return err
		}
		if ids = append(ids, id); int64(len(ids)) == handles {
			break
		}
	}
	if int64(len(ids)) < handles {
		return fmt.Errorf("%d mblocks to hold, not %d", len(ids), handles)
	}
	data := noise(readSize)
	return parallel(len(ids), func(i int) error {
		if _, err := c.pool.Mblock(ctx, ids[i]); err != nil {
			return err
		}
		if i%handlesPerWrite != 0 {
			return nil
		}
		m, err := c.pool.AllocMblock(ctx, api.AllocOptions{Capacity: readSize})
		if err == nil {
			_, err = m.Write(ctx, data)
		}
		return err
	})
}

// parallel calls f with 0 to n-1, several at a time.
func parallel(n int, f func(i int) error) error {
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	_, err := measure.Run(measure.Plan{Workers: victimFlight}, func(int) error {
		i, ok := <-next
		if !ok {
			return measure.ErrEnd
		}
		return f(i)
	})
	return err
}

// fork makes a child that has all that this process has, its socket and its
// memory included, and goes on until standard input ends.
func fork() error {
	var b [1]byte
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("fork: %w", errno)
	}
	if pid != 0 {
		return nil
	}
	// The child is one thread without a scheduler: system calls are all it may do.
	for {
		n, _, _ := syscall.RawSyscall(syscall.SYS_READ, 0, uintptr(unsafe.Pointer(&b)), 1) //nolint:errcheck // then it has read nothing
		if n != 1 {
			_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0) //nolint:errcheck // it does not return
		}
	}
}
