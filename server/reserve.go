package server

import (
	"context"
	"fmt"
	"sync"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/mpool"
)

// Resource is something of the daemon's that is reserved before it is used.
type Resource uint8

// The resources.
const (
	Connections  Resource = iota + 1 // sessions
	Descriptors                      // open files, sockets and pidfds among them
	Requests                         // in flight
	MessageBytes                     // memory of messages
	ArenaBytes                       // shared memory
	IOBytes                          // data of requests in flight; in chunks
)

var resourceNames = [...]string{
	Connections: "connections", Descriptors: "descriptors", Requests: "requests in flight",
	MessageBytes: "bytes of messages", ArenaBytes: "bytes of arenas", IOBytes: "bytes of I/O in flight",
}

func (r Resource) String() string {
	if int(r) < len(resourceNames) && resourceNames[r] != "" {
		return resourceNames[r]
	}
	return fmt.Sprintf("resource %d", uint8(r))
}

// Client says for whom something is reserved: one session.
type Client struct {
	Session uint64
	PID     int32
	UID     uint32
}

// Reserver decides how much of the daemon clients may use now, below its
// [Limits]. Its methods are called from many goroutines at once. What was
// reserved is released exactly once, all of it when the session has ended; c is
// the same pointer in all calls of a session.
type Reserver interface {
	// Reserve is called before n of something are used. If it returns an error
	// nothing is used, nothing is to be released, and the client gets EAGAIN,
	// with the error's text. It must not wait.
	Reserve(c *Client, what Resource, n int64) error
	// Release is called after n of what was reserved are used no more; parts
	// that were reserved apart may be released together. It must not wait.
	Release(c *Client, what Resource, n int64)
	// Admit is asked before each background step of a pool, and may wait. An
	// error that is not the context's puts the step off.
	Admit(ctx context.Context, pool string, p mpool.Priority) error
}

// unlimited is the Reserver that refuses nothing.
type unlimited struct{}

func (unlimited) Reserve(*Client, Resource, int64) error              { return nil }
func (unlimited) Release(*Client, Resource, int64)                    {}
func (unlimited) Admit(context.Context, string, mpool.Priority) error { return nil }

// bufferBytes is the memory of a message's buffer.
const bufferBytes = 2*align + ioctl.MaxMessage

// What a session takes to begin: its socket and its process's pidfd; a buffer
// to receive into, and one for what the reader itself answers.
const (
	sessionDescriptors = 2
	sessionBytes       = 2 * bufferBytes
)

// reserve takes something for the session, or says EAGAIN.
func (s *session) reserve(what Resource, n int64) error {
	if err := s.srv.reserver.Reserve(&s.client, what, n); err != nil {
		return &api.Error{
			Code: api.EAGAIN, Detail: fmt.Sprintf("the client may have no more %v now", what), Err: err,
		}
	}
	if what == MessageBytes || what == ArenaBytes {
		s.memory.Add(n)
	}
	return nil
}

// unreserve gives back what reserve took.
func (s *session) unreserve(what Resource, n int64) {
	if what == MessageBytes || what == ArenaBytes {
		s.memory.Add(-n)
	}
	s.srv.reserver.Release(&s.client, what, n)
}

// admitSession reserves what a session takes to begin.
func (s *session) admitSession() error {
	if err := s.reserve(Connections, 1); err != nil {
		return err
	}
	if err := s.reserve(Descriptors, sessionDescriptors); err != nil {
		s.unreserve(Connections, 1)
		return err
	}
	if err := s.reserve(MessageBytes, sessionBytes); err != nil {
		s.unreserve(Descriptors, sessionDescriptors)
		s.unreserve(Connections, 1)
		return err
	}
	return nil
}

// dismiss gives back what admitSession took.
func (s *session) dismiss() {
	s.unreserve(MessageBytes, sessionBytes)
	s.unreserve(Descriptors, sessionDescriptors)
	s.unreserve(Connections, 1)
}

// admit reserves what a request takes to begin: itself, a buffer for its
// answer, and the one that it came in if it keeps that.
func (r *request) admit(keeps bool) error {
	if err := r.s.reserve(Requests, 1); err != nil {
		return err
	}
	n := int64(bufferBytes)
	if keeps {
		n += bufferBytes
	}
	if err := r.s.reserve(MessageBytes, n); err != nil {
		r.s.unreserve(Requests, 1)
		return err
	}
	r.buffers = n
	return nil
}

// dismiss gives back what the request took, then and later.
func (r *request) dismiss() {
	r.s.io.give(r.s, r.io)
	r.s.unreserve(MessageBytes, r.buffers)
	r.s.unreserve(Requests, 1)
}

// ioChunk is the unit in which a session reserves I/O, and ioKeep is what it
// keeps of it while it does none, in bytes.
const (
	ioChunk = 1 << 20
	ioKeep  = 4 * ioChunk
)

// ioBudget is what a session has reserved for its I/O. Requests take from it
// and give back to it; the Reserver hears of chunks only.
type ioBudget struct {
	mu sync.Mutex
	// +checklocks:mu
	used int64 // by requests in flight
	// +checklocks:mu
	reserved int64 // used and more
}

// take takes n bytes for a request.
func (b *ioBudget) take(s *session, n int64) error {
	for {
		short := b.tryTake(n)
		if short == 0 {
			return nil
		}
		if err := s.reserve(IOBytes, short); err != nil {
			return err
		}
		b.mu.Lock()
		b.reserved += short
		b.mu.Unlock()
	}
}

// tryTake takes n bytes if there are so many, and returns how many are to be
// reserved before: whole chunks.
func (b *ioBudget) tryTake(n int64) (short int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+n > b.reserved {
		return (b.used + n - b.reserved + ioChunk - 1) / ioChunk * ioChunk
	}
	b.used += n
	return 0
}

// give gives n bytes back.
func (b *ioBudget) give(s *session, n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	b.used -= n
	excess := int64(0)
	if b.used == 0 {
		excess = max(b.reserved-ioKeep, 0)
		b.reserved -= excess
	}
	b.mu.Unlock()
	if excess > 0 {
		s.unreserve(IOBytes, excess)
	}
}

// end gives everything back; no request is in flight.
func (b *ioBudget) end(s *session) {
	b.mu.Lock()
	n := b.reserved
	b.reserved = 0
	b.mu.Unlock()
	if n > 0 {
		s.unreserve(IOBytes, n)
	}
}
