package client

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/ioctl"
)

// leadTime is how long at most who waits for an answer sleeps on the socket itself
// before the link's own goroutine takes over. Much longer than a daemon that has
// nothing else to do takes; a context that ends meanwhile is seen that much later.
const leadTime = time.Millisecond

// socket is the client's end of a connection. It is received from by the link's own
// goroutine, or, because to wake that one and then who waits takes as long as the daemon
// does, by a caller that waits, which sleeps in the kernel for it. So that its messages
// do not wake the runtime meanwhile, that watches not the socket but an epoll instance
// which can be told to overlook it.
type socket struct {
	file  *os.File // in blocking mode: the runtime does not watch it
	raw   syscall.RawConn
	epoll *os.File
	rawEp syscall.RawConn

	// turn is had by who receives, until it has handed on what has come: so that is
	// done in order.
	turn sync.Mutex
	// +checklocks:turn
	in received
	// +checklocks:turn
	reset bool // the kernel has told of the end, and may yet give what was sent before
}

// received is what one call of the kernel has to do and has done.
type received struct {
	once  func(fd uintptr) // does it
	from  *ioctl.Receiver
	buf   []byte
	flags int
	n     int // bytes in buf
	oob   []byte
	err   error
}

func (r *received) receive(fd uintptr) {
	r.n, r.oob, _, r.err = r.from.Receive(int(fd), r.buf, r.flags)
}

// newSocket takes over a connection, which it closes.
func newSocket(u *net.UnixConn) (*socket, error) {
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, u.Close())
	}
	fd := -1
	err = control(raw, func(from int) (err error) {
		fd, err = unix.FcntlInt(uintptr(from), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err = errors.Join(err, u.Close()); err != nil {
		closeFD(fd)
		return nil, err
	}
	s := &socket{}
	s.in.from = ioctl.NewReceiver(unix.CmsgSpace(4))
	s.in.once = s.in.receive
	if err := s.open(fd); err != nil {
		s.closed()
		return nil, err
	}
	return s, nil
}

// open makes files of the descriptor and of an epoll instance. What is there when it
// fails is for closed.
func (s *socket) open(fd int) error {
	if err := unix.SetNonblock(fd, false); err != nil {
		closeFD(fd)
		return err
	}
	s.file = os.NewFile(uintptr(fd), "mpool")
	wait := unix.NsecToTimeval(int64(leadTime))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(ep, true); err != nil {
		closeFD(ep)
		return err
	}
	s.epoll = os.NewFile(uintptr(ep), "mpool epoll")
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		return err
	}
	s.rawEp, err = s.epoll.SyscallConn()
	return err
}

// close closes the connection, and has watch return, whose caller calls closed. It waits
// for nobody: who is in the kernel comes back within leadTime, or its write fails.
func (s *socket) close() {
	_ = s.epoll.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // fails only if it was closed
	_ = s.file.Close()                           // nothing to lose
}

// closed gives back what is left when nobody watches any more.
func (s *socket) closed() {
	for _, f := range []*os.File{s.file, s.epoll} {
		if f != nil {
			_ = f.Close() // nothing to lose, and the file may be closed
		}
	}
}

// shut ends the connection in the directions of how, for all processes that have it.
func (s *socket) shut(how int) error {
	return control(s.raw, func(fd int) error { return unix.Shutdown(fd, how) })
}

// send sends a message without waiting: EAGAIN if there is no room.
func (s *socket) send(b []byte) error {
	return control(s.raw, func(fd int) error {
		for {
			_, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
}

// roomEvery is how often who waits for room looks whether the connection was closed
// without having been shut, as it is in a child.
const roomEvery = 100 // milliseconds

// sendWaiting sends a message when there is room for it, or fails when the connection ends.
func (s *socket) sendWaiting(b []byte) error {
	for {
		err := s.send(b)
		if !errors.Is(err, unix.EAGAIN) {
			return err
		}
		err = control(s.raw, func(fd int) error {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, roomEvery)
			return err
		})
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// receive receives a message into buf, and the descriptor that came with it, or -1. With
// wait it sleeps up to leadTime for one. EAGAIN: none has come. io.EOF: the daemon has
// hung up, and nothing it has sent before is left.
//
// +checklocks:s.turn
func (s *socket) receive(buf []byte, wait bool) (n, fd int, err error) {
	in := &s.in
	in.buf, in.flags = buf, unix.MSG_CMSG_CLOEXEC
	if !wait {
		in.flags |= unix.MSG_DONTWAIT
	}
	for {
		if err := s.raw.Control(in.once); err != nil {
			return 0, -1, err
		}
		switch {
		case in.err == unix.EAGAIN: //nolint:errorlint // it is no other, and comes often
			return 0, -1, unix.EAGAIN
		case errors.Is(in.err, unix.ECONNRESET) && !s.reset:
			s.reset = true
			continue
		case in.err != nil:
			return 0, -1, os.NewSyscallError("recvmsg", in.err)
		case in.n == 0:
			return 0, -1, io.EOF
		}
		return in.n, takeFD(in.oob), nil
	}
}

// watch calls f when something may have come, but for what came while the socket was
// overlooked. It returns when f returns true, or the connection is closed.
func (s *socket) watch(f func() (over bool)) error {
	return s.rawEp.Read(func(uintptr) bool { return f() })
}

// overlook has what comes wake watch no more, or again. Who says so then looks itself
// for what has come before: watch need not have been woken for it.
func (s *socket) overlook(yes bool) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN}
	if yes {
		e.Events = 0
	}
	return control(s.rawEp, func(ep int) error {
		return control(s.raw, func(fd int) error { return unix.EpollCtl(ep, unix.EPOLL_CTL_MOD, fd, &e) })
	})
}

// control calls f with a descriptor that stays open meanwhile.
func control(raw syscall.RawConn, f func(fd int) error) error {
	var err error
	if cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}
