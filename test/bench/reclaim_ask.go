package main

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// asker is a session of its own that asks one question at a time with one thread:
// it writes to its socket and reads from it, and the kernel wakes nobody else for
// it. It is for one goroutine.
type asker struct {
	fd   int
	pool ioctl.Handle
	tag  uint64
	buf  []byte // of answers
	out  []byte // of questions
}

// newAsker connects and opens the pool.
func newAsker(socket string) (*asker, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	a := &asker{fd: fd, buf: make([]byte, ioctl.MaxMessage)}
	patience := unix.NsecToTimeval(reclaimPatience.Nanoseconds())
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.Connect(fd, &unix.SockaddrUnix{Name: socket}))
	if err == nil {
		err = a.ask(ioctl.OpHello, &ioctl.Hello{MinVersion: ioctl.Version, MaxVersion: ioctl.Version}, &ioctl.HelloReply{})
	}
	if err == nil {
		a.pool, err = a.open(ioctl.OpPoolOpen, &ioctl.PoolName{Name: poolName})
	}
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func (a *asker) close() error { return unix.Close(a.fd) }

// ask makes a request and waits for the answer.
func (a *asker) ask(op ioctl.Op, m, reply ioctl.Message) error {
	a.tag++
	b, err := ioctl.Append(a.out[:0], ioctl.Header{Op: op, Tag: a.tag}, m)
	if err != nil {
		return err
	}
	a.out = b
	if err := again(func() (int, error) { return unix.Write(a.fd, b) }, new(int)); err != nil {
		return fmt.Errorf("ask for %v: %w", op, err)
	}
	var n int
	if err := again(func() (int, error) { return unix.Read(a.fd, a.buf) }, &n); err != nil {
		return fmt.Errorf("wait for the answer to %v: %w", op, err)
	}
	h, err := ioctl.ParseHeader(a.buf[:n])
	if err != nil {
		return err
	}
	if h.Tag != a.tag || h.Op != op {
		return fmt.Errorf("answer to %v of tag %d; asked %v of tag %d", h.Op, h.Tag, op, a.tag)
	}
	if h.Flags&ioctl.FlagError != 0 {
		var e ioctl.Error
		return errors.Join(ioctl.Decode(&e, a.buf[ioctl.HeaderSize:n]), e.API())
	}
	return ioctl.Decode(reply, a.buf[ioctl.HeaderSize:n])
}

// again calls f until no signal interrupts it.
func again(f func() (int, error), n *int) error {
	for {
		var err error
		if *n, err = f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// open makes a request that gives a handle.
func (a *asker) open(op ioctl.Op, m ioctl.Message) (ioctl.Handle, error) {
	var o ioctl.Opened
	err := a.ask(op, m, &o)
	return o.Handle, err
}

// find takes a reference on an mblock.
func (a *asker) find(id layout.ObjectID) (ioctl.Handle, error) {
	return a.open(ioctl.OpMblockFind, &ioctl.Find{Pool: a.pool, ID: id})
}

// references returns how many there are on an object.
func (a *asker) references(h ioctl.Handle) (uint32, error) {
	var o ioctl.ObjectReply
	err := a.ask(ioctl.OpObjectInfo, &ioctl.Target{Handle: h}, &o)
	return o.Info.Refs, err
}

// remove deletes an object, which nobody else may have a reference on.
func (a *asker) remove(h ioctl.Handle) error {
	return a.ask(ioctl.OpObjectDelete, &ioctl.Target{Handle: h}, &ioctl.Empty{})
}

// sight is when references were seen, and seen no more, in ns of CLOCK_MONOTONIC.
type sight struct {
	held int64 // the last question was sent to which the answer was that they are held; 0: none
	free int64 // the answer came that they are not
}

// await asks until a reference of its own is the only one, and then has the object
// deleted, which must succeed.
func (a *asker) await(h ioctl.Handle) (s sight, err error) {
	for end := monotonic() + reclaimPatience.Nanoseconds(); ; {
		asked := monotonic()
		n, err := a.references(h)
		s.free = monotonic()
		if err != nil {
			return s, err
		}
		if n == 1 {
			return s, a.remove(h)
		}
		s.held = asked
		if s.free > end {
			return s, fmt.Errorf("%d references are held", n)
		}
		// Without a break, asking would keep those from running who are to die and
		// who are to notice.
		pause := unix.NsecToTimespec(askEvery.Nanoseconds())
		_ = unix.Nanosleep(&pause, nil) //nolint:errcheck // it may be shorter
	}
}

// monotonic returns the ns of CLOCK_MONOTONIC, which the daemon's events have too.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return t.Nano()
}

// since returns the ms from one moment to another.
func since(from, to int64) float64 { return float64(to-from) / float64(time.Millisecond) }
