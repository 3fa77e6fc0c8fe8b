package server

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/scope"
)

// Resource is something of the daemon's that is reserved before it is used.
type Resource uint8

// The resources.
const (
	Connections  Resource = iota + 1 // sessions
	Descriptors                      // open files, sockets and pidfds among them
	Requests                         // in flight; in chunks
	Urgent                           // requests in flight that others may wait for: commits, metadata, syncs; in chunks
	MessageBytes                     // memory of messages
	ArenaBytes                       // shared memory
	IOBytes                          // data of requests in flight, in arenas or in messages; in chunks
	HandleBytes                      // memory of handles; in chunks, given back by the session's end
	CreditBytes                      // memory of what clients borrow; in chunks
)

var resourceNames = [...]string{
	Connections: "connections", Descriptors: "descriptors", Requests: "requests in flight", Urgent: "urgent requests in flight", HandleBytes: "bytes of handles", CreditBytes: "bytes of credits",
	MessageBytes: "bytes of messages", ArenaBytes: "bytes of arenas", IOBytes: "bytes of I/O in flight",
}

func (r Resource) String() string {
	if int(r) < len(resourceNames) && resourceNames[r] != "" {
		return resourceNames[r]
	}
	return fmt.Sprintf("resource %d", uint8(r))
}

// isMemory says whether a resource is memory that nothing else is charged for.
func (r Resource) isMemory() bool {
	return r == MessageBytes || r == ArenaBytes || r == HandleBytes || r == CreditBytes
}

// Client says for whom something is reserved: one session.
type Client struct {
	Session uint64
	PID     int32
	UID     uint32

	end   func() // ends the session; it does not wait. nil: there is none yet
	books *books // of Scopes
}

// Reserver decides how much of the daemon clients may use now, below its
// [Limits]. Its methods are called from many goroutines at once. What was
// reserved is released exactly once, all of it when the session has ended; c is
// the same pointer in all calls of a session. Connections is reserved first of all, and
// released last.
type Reserver interface {
	// Greet is called when the client has said hello. An error is EAGAIN, as of Reserve:
	// the client may say it again.
	Greet(c *Client) error
	// Enter is called when the client opens a pool. An error is EAGAIN, as of Reserve.
	Enter(c *Client, pool string) error
	// Reserve is called before n of something are used. If it returns an error
	// nothing is used, nothing is to be released, and the client gets EAGAIN,
	// with the error's text. It must not wait.
	Reserve(c *Client, what Resource, n int64) error
	// Release is called after n of what was reserved are used no more; parts
	// that were reserved apart may be released together. It must not wait.
	Release(c *Client, what Resource, n int64)
	// Waiting says whether a background step waits for what requests may give back:
	// then nothing is kept for those to come.
	Waiting() bool
	// Admit is asked before each background step of a pool, and may wait. done is
	// called once, when the step has ended. An error that is not the context's puts the
	// step off.
	Admit(ctx context.Context, pool string, p mpool.Priority) (done func(), err error)
}

// unlimited is the Reserver that refuses nothing.
type unlimited struct{}

func (unlimited) Greet(*Client) error                    { return nil }
func (unlimited) Enter(*Client, string) error            { return nil }
func (unlimited) Reserve(*Client, Resource, int64) error { return nil }
func (unlimited) Release(*Client, Resource, int64)       {}
func (unlimited) Waiting() bool                          { return false }

func (unlimited) Admit(context.Context, string, mpool.Priority) (func(), error) {
	return func() {}, nil
}

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
		return refused(fmt.Sprintf("the client may have no more %v now", what), err)
	}
	if what.isMemory() {
		s.memory.Add(n)
	}
	return nil
}

// refused is the error of a client that may not have what it asked for.
func refused(detail string, err error) error {
	e := &api.Error{Code: api.EAGAIN, Detail: detail, Err: err}
	if l, ok := errors.AsType[*scope.LimitError](err); ok {
		e.Refusal = &api.Refusal{Class: l.Kind.String(), Owner: l.Scope, Used: l.Used, Asked: l.Asked, Limit: l.Limit}
	}
	return e
}

// unreserve gives back what reserve took.
func (s *session) unreserve(what Resource, n int64) {
	if what.isMemory() {
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
	if err := r.s.beginTask(r.kind); err != nil {
		return err
	}
	n := int64(bufferBytes)
	if keeps {
		n += bufferBytes
	}
	if err := r.s.reserve(MessageBytes, n); err != nil {
		r.s.endTask(r.kind)
		return err
	}
	r.buffers, r.admitted = n, true
	return nil
}

// mustServe says whether a request is served also if nothing can be reserved for it:
// what gives back, so that no limit keeps a client from that, and what administrators
// change limits with. There are no more than the session has slots.
func (r *request) mustServe() bool {
	givesBack := r.op == ioctl.OpClose || r.op == ioctl.OpObjectAbort || r.op == ioctl.OpRingClose
	manages := r.op == ioctl.OpScopeList || r.op == ioctl.OpScopeSet
	return givesBack || manages && r.s.peer.admin
}

// dismiss gives back what the request took, then and later.
func (r *request) dismiss() {
	r.s.io.give(r.s, IOBytes, r.io)
	if r.admitted {
		r.s.unreserve(MessageBytes, r.buffers)
		r.s.endTask(r.kind)
	}
}

// beginTask reserves a request of a kind, which is urgent if it waits for a flush that
// others share, and none of its own if its work is a background step, which Admit
// counts; endTask gives it back.
func (s *session) beginTask(k kind) error {
	switch k {
	case durable:
		return s.urgent.take(s, Urgent, 1)
	case background:
		return nil
	case unscheduled, quick, bulk, kinds:
	}
	return s.tasks.take(s, Requests, 1)
}

func (s *session) endTask(k kind) {
	switch k {
	case durable:
		s.urgent.give(s, Urgent, 1)
	case background:
	case unscheduled, quick, bulk, kinds:
		s.tasks.give(s, Requests, 1)
	}
}

// handleBytes is the memory of a handle and of what it stands for, and handleChunk how
// many are reserved at once.
const (
	handleBytes = 1 << 10
	handleChunk = 64
)

// readerBytes is the memory of an open reader's windows when they have grown: one that
// is read from and the one ahead.
const readerBytes = 2 << 20

// appenderBytes is the memory of a log that is open for append, while its drive keeps up:
// the pages that are being filled and the one that is being written.
const appenderBytes = 272 << 10

// roomForHandle reserves memory for one more handle. What the table has once grown to
// is given back when the session ends.
func (s *session) roomForHandle() error {
	if int64(s.table.Len()) < s.handleRoom.Load() {
		return nil
	}
	if err := s.reserve(HandleBytes, handleChunk*handleBytes); err != nil {
		return err
	}
	s.handleRoom.Add(handleChunk)
	return nil
}

// giveBack gives back what the session has of chunks; no request is in flight.
func (s *session) giveBack() {
	s.io.end(s, IOBytes)
	s.tasks.end(s, Requests)
	s.urgent.end(s, Urgent)
	s.logs.end(s, HandleBytes)
	if n := s.handleRoom.Swap(0); n > 0 {
		s.unreserve(HandleBytes, n*handleBytes)
	}
}

// ioChunk is the unit in which a session reserves I/O, and ioKeep is what it
// keeps of it while it does none, in bytes. taskChunk is how many requests it reserves
// at most at once, of which it keeps none.
const (
	ioChunk   = 1 << 20
	ioKeep    = 4 * ioChunk
	taskChunk = 8
)

// chunkOf returns the unit in which a resource is reserved, and what is kept.
func chunkOf(what Resource) (chunk, keep int64) {
	if what == IOBytes {
		return ioChunk, ioKeep
	}
	if what == HandleBytes {
		return 1, 0
	}
	return taskChunk, 0
}

// budget is what a session has reserved of a resource. Requests take from it
// and give back to it; the Reserver hears of chunks only.
type budget struct {
	mu sync.Mutex
	// +checklocks:mu
	used int64 // by requests in flight
	// +checklocks:mu
	reserved int64 // used and more
}

// take takes n for a request. Where a whole chunk is refused, what is missing may not be.
func (b *budget) take(s *session, what Resource, n int64) error {
	for {
		short, used := b.tryTake(n)
		if short == 0 {
			return nil
		}
		chunk, _ := chunkOf(what)
		whole := (short + chunk - 1) / chunk * chunk
		if what != IOBytes {
			whole = short + min(used, chunk-1) // exact for who has few
		}
		err := s.reserve(what, whole)
		if err != nil && whole > short {
			whole = short
			err = s.reserve(what, whole)
		}
		if err != nil {
			return err
		}
		b.mu.Lock()
		b.reserved += whole
		b.mu.Unlock()
	}
}

// tryTake takes n if there are so many, and returns how many are to be reserved
// before, and how many are in use.
func (b *budget) tryTake(n int64) (short, used int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+n > b.reserved {
		return b.used + n - b.reserved, b.used
	}
	b.used += n
	return 0, b.used
}

// give gives n back.
func (b *budget) give(s *session, what Resource, n int64) {
	if n == 0 {
		return
	}
	chunk, keep := chunkOf(what)
	b.mu.Lock()
	b.used -= n
	excess := int64(0)
	if chunk == 1 {
		excess = max(b.reserved-b.used, 0)
		b.reserved -= excess
	} else if b.used == 0 || what != IOBytes && s.srv.reserver.Waiting() {
		excess = max(b.reserved-keep, 0)
		b.reserved -= excess
	}
	b.mu.Unlock()
	if excess > 0 {
		s.unreserve(what, excess)
	}
}

// end gives everything back; no request is in flight.
func (b *budget) end(s *session, what Resource) {
	b.mu.Lock()
	n := b.reserved
	b.reserved = 0
	b.mu.Unlock()
	if n > 0 {
		s.unreserve(what, n)
	}
}
