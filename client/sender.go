package client

import (
	"bytes"
	"errors"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/ioctl"
)

// sender sends messages in order. A message is sent at once if the socket takes
// it; else it waits in a queue, which has no more entries than there may be
// requests in flight, and maxCredits bytes beside, and the caller waits for nothing
// but its context.
type sender struct {
	l *link

	mu sync.Mutex
	// +checklocks:mu
	queue []queued // being sent by flush, which runs while it is not empty
	// +checklocks:mu
	credits int // bytes of messages of credits in the queue
}

type queued struct {
	tag    uint64
	b      []byte
	buf    *[ioctl.MaxMessage]byte // where b lies; nil: in memory of its own
	credit bool
}

func (q *queued) done() {
	if q.buf != nil {
		putBuffer(q.buf)
	}
}

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

// maxCredits is how many bytes of messages of credits wait before others are lost: of
// 20,000 objects that are given back at once, say. The owner of credits keeps as many
// until they are acknowledged, and sends again what was lost when nothing was acknowledged for
// creditRetry, as fast as the daemon takes it.
const maxCredits = 4 << 20

// sendCredit is send for a message that is sent again if it is lost: EAGAIN says that
// it was, because the daemon has not read for long.
func (s *sender) sendCredit(h ioctl.Header, m ioctl.Message) error {
	q, err := encode(h, m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.credits+len(q.b) > maxCredits {
		q.done()
		return unix.EAGAIN
	}
	q.credit = true
	return s.put(q)
}

// put sends a message or queues it.
//
// +checklocks:s.mu
func (s *sender) put(q queued) error {
	if len(s.queue) == 0 {
		err := s.l.sock.send(q.b)
		if !errors.Is(err, unix.EAGAIN) {
			q.done()
			return err
		}
		if !s.l.spawn(s.flush) {
			q.done()
			return net.ErrClosed
		}
	}
	if q.credit { // there may be many, and they are small
		s.credits += len(q.b)
		q.b = bytes.Clone(q.b)
		q.done()
		q.buf = nil
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
		_ = s.l.sock.send(q.b) //nolint:errcheck // the caller can do without
	}
	q.done()
}

func encode(h ioctl.Header, m ioctl.Message) (queued, error) {
	buf := getBuffer()
	b, err := ioctl.Append(buf[:0], h, m)
	if err != nil {
		putBuffer(buf)
		return queued{}, err
	}
	return queued{tag: h.Tag, b: b, buf: buf}, nil
}

// unsend takes a message out of the queue, and says whether it was there.
func (s *sender) unsend(tag uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The first may be half way out.
	for i := 1; i < len(s.queue); i++ {
		if s.queue[i].tag == tag {
			s.queue[i].done()
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
		err := s.l.sock.sendWaiting(q.b)
		if err != nil {
			s.l.fail()
		}
		s.mu.Lock()
		q.done()
		s.queue = s.queue[1:]
		if q.credit {
			s.credits -= len(q.b)
		}
		if err != nil {
			s.queue, s.credits = nil, 0
		}
		last := len(s.queue) == 0
		s.mu.Unlock()
		if last {
			return
		}
	}
}
