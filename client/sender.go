package client

import (
	"errors"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/ioctl"
)

// sender sends messages in order. A message is sent at once if the socket takes
// it; else it waits in a queue, which has no more entries than there may be
// requests in flight, and maxCredits beside, and the caller waits for nothing but
// its context.
type sender struct {
	l   *link
	raw syscall.RawConn

	mu sync.Mutex
	// +checklocks:mu
	queue []queued // being sent by flush, which runs while it is not empty
}

type queued struct {
	tag uint64
	buf *[ioctl.MaxMessage]byte
	n   int
}

func (s *sender) init(l *link, raw syscall.RawConn) { s.l, s.raw = l, raw }

// send sends a message or queues it. The error is ioctl.ErrTooLong's or the
// socket's.
func (s *sender) send(h ioctl.Header, m ioctl.Message) error {
	q, err := encode(h, m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put(q)
}

// maxCredits is how long the queue is when messages of credits are lost.
const maxCredits = 256

// sendCredit is send for a message that is sent again if it is lost: EAGAIN says that
// it was, because the daemon has not read for long.
func (s *sender) sendCredit(h ioctl.Header, m ioctl.Message) error {
	q, err := encode(h, m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) >= maxCredits {
		putBuffer(q.buf)
		return unix.EAGAIN
	}
	return s.put(q)
}

// put sends a message or queues it.
//
// +checklocks:s.mu
func (s *sender) put(q queued) error {
	if len(s.queue) == 0 {
		err := s.now(q)
		if !errors.Is(err, unix.EAGAIN) {
			putBuffer(q.buf)
			return err
		}
		if !s.l.spawn(s.flush) {
			putBuffer(q.buf)
			return net.ErrClosed
		}
	}
	s.queue = append(s.queue, q)
	return nil
}

// try sends a message if the socket takes it.
func (s *sender) try(h ioctl.Header, m ioctl.Message) {
	q, err := encode(h, m)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		_ = s.now(q) //nolint:errcheck // the caller can do without
	}
	putBuffer(q.buf)
}

func encode(h ioctl.Header, m ioctl.Message) (queued, error) {
	buf := getBuffer()
	b, err := ioctl.Append(buf[:0], h, m)
	if err != nil {
		putBuffer(buf)
		return queued{}, err
	}
	return queued{tag: h.Tag, buf: buf, n: len(b)}, nil
}

// now sends without waiting: EAGAIN if the socket is full.
//
// +checklocks:s.mu
func (s *sender) now(q queued) error {
	var err error
	if werr := s.raw.Write(func(fd uintptr) bool {
		for {
			_, err = unix.SendmsgN(int(fd), q.buf[:q.n], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if !errors.Is(err, unix.EINTR) {
				return true
			}
		}
	}); werr != nil {
		return werr
	}
	return err
}

// unsend takes a message out of the queue, and says whether it was there.
func (s *sender) unsend(tag uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The first may be half way out.
	for i := 1; i < len(s.queue); i++ {
		if s.queue[i].tag == tag {
			putBuffer(s.queue[i].buf)
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			return true
		}
	}
	return false
}

// flush sends what is queued, waiting for room as long as it takes.
func (s *sender) flush() {
	for {
		s.mu.Lock()
		q := s.queue[0]
		s.mu.Unlock()
		_, err := s.l.conn.Write(q.buf[:q.n])
		if err != nil {
			s.l.fail()
		}
		s.mu.Lock()
		putBuffer(q.buf)
		s.queue = s.queue[1:]
		if err != nil {
			s.queue = nil
		}
		last := len(s.queue) == 0
		s.mu.Unlock()
		if last {
			return
		}
	}
}
