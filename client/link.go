package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// grace is how long a call whose context has ended waits for the daemon to say
// what became of its request.
const grace = 250 * time.Millisecond

// courtesy bounds calls that have no context.
const courtesy = 10 * time.Second

// link is one connection to one daemon: one session. When it is over it stays
// so, and the Conn makes another.
type link struct {
	sock   *socket
	pid    int // of the process that made it
	mark   mark
	uid    int // that the process had
	limits *ioctl.HelloReply
	slots  chan struct{} // a token per request in flight
	out    sender
	arenas arenas          // for calls' data
	lent   arenas          // for what the program borrows, and its queues
	wg     *sync.WaitGroup // the receiver, the sender, and who gives back what came late

	over     atomic.Bool // dead is set
	answered atomic.Bool // the daemon has answered a request

	waiting atomic.Int32 // callers that wait for what comes on the socket
	leading atomic.Bool  // one of them receives itself
	breath  breath       // of who leads

	shared  atomic.Pointer[sharedRing] // nil until there is one
	sharing atomic.Bool                // it was asked for
	windows atomic.Int32               // that are read ahead
	credits linkCredits

	mu sync.Mutex
	// +checklocks:mu
	calls map[uint64]*call // in flight, by tag
	// +checklocks:mu
	rings [ioctl.MaxRings]ringUser
	// +checklocks:mu
	lastCount uint64 // of a tag
	// +checklocks:mu
	dead error // why the connection is gone, or nil
}

// call is a request in flight.
type call struct {
	tag  uint64
	op   ioctl.Op
	hold *region // kept until the daemon is done with it, or nil

	done chan struct{} // closed when there is an answer, or there will be none
	// What follows is valid when done is closed.
	buf  *[ioctl.MaxMessage]byte
	size int
	fd   int // that came with the answer, or -1
	err  error

	late bool // nobody waits any more; guarded by link.mu
}

var buffers = sync.Pool{New: func() any { return new([ioctl.MaxMessage]byte) }}

func getBuffer() *[ioctl.MaxMessage]byte  { return buffers.Get().(*[ioctl.MaxMessage]byte) }
func putBuffer(b *[ioctl.MaxMessage]byte) { buffers.Put(b) }

// newLink makes a link of a connection that has said hello, of the process pid.
// Its goroutines count in wg and end after die.
func newLink(u *net.UnixConn, limits *ioctl.HelloReply, pid int, wg *sync.WaitGroup) (*link, error) {
	sock, err := newSocket(u)
	if err != nil {
		return nil, gone("dial", err)
	}
	l := &link{
		sock: sock, pid: pid, uid: os.Geteuid(), limits: limits, wg: wg, calls: make(map[uint64]*call),
		slots: make(chan struct{}, max(limits.MaxRequests, 1)),
		// Who has the socket and is not this process cannot guess what is in
		// flight, and so not bring about an answer to it.
		lastCount: rand.Uint64(),
	}
	l.mark = newMark(l, pid)
	l.out.l = l
	l.arenas.init(l, int64(limits.ArenaTotal/4))
	l.lent.init(l, 0)
	l.wg.Go(l.receive)
	return l, nil
}

// die ends the connection for the first reason given. All calls fail.
func (l *link) die(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead != nil {
		return
	}
	l.dead = cause
	l.over.Store(true)
	if os.Getpid() == l.pid {
		// A child that has the socket must not keep the session.
		_ = l.sock.shut(unix.SHUT_RDWR) //nolint:errcheck // it may be closed by the daemon
	}
	l.sock.close()
	for tag, k := range l.calls {
		delete(l.calls, tag)
		k.err = cause
		l.finish(k)
	}
	for _, u := range l.rings {
		if u != nil {
			u.die(cause)
		}
	}
	l.arenas.close()
	l.lent.close()
}

// fail is for who cannot send: nothing more is sent. What the daemon has
// answered before still comes; then the receiver ends the connection.
func (l *link) fail() {
	l.over.Store(true)
	if l.sock.shut(unix.SHUT_RDWR) != nil {
		l.die(net.ErrClosed)
	}
}

// why returns why the connection is gone, or nil.
func (l *link) why() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

// finish says that the daemon is done with the call, or never will be.
func (l *link) finish(k *call) {
	k.end()
	<-l.slots
}

func (k *call) end() {
	if k.hold != nil {
		k.hold.drop()
	}
	close(k.done)
}

// spawn starts a goroutine that Close waits for, unless the connection is gone.
func (l *link) spawn(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead != nil {
		return false
	}
	l.wg.Go(f) // the receiver still runs: it ends after dead is set
	return true
}

// do makes a request and waits for the answer, which it reads into reply.
func (l *link) do(ctx context.Context, op ioctl.Op, m, reply ioctl.Message) error {
	return l.exchange(ctx, op, m, reply, nil, nil)
}

// exchange is do for requests with more than a message: hold is memory that the
// daemon uses meanwhile; read is called with the decoded reply before its
// buffer is used again.
func (l *link) exchange(ctx context.Context, op ioctl.Op, m, reply ioctl.Message, hold *region, read func()) error {
	fd, err := l.exchangeFD(ctx, op, m, reply, hold, read)
	closeFD(fd) // none was asked for
	return err
}

// exchangeFD is exchange for an answer that comes with a descriptor, which it
// returns, or -1.
func (l *link) exchangeFD(ctx context.Context, op ioctl.Op, m, reply ioctl.Message, hold *region, read func()) (int, error) {
	k, err := l.ask(ctx, op, m, hold)
	if err != nil {
		return -1, err
	}
	if k.err != nil {
		return -1, lost(op, k.err)
	}
	defer putBuffer(k.buf)
	h, err := ioctl.ParseHeader(k.buf[:k.size])
	if err != nil {
		return -1, &api.Error{Code: api.EPROTO, Op: op.Name(), Err: err}
	}
	if err := decode(h, k.buf[ioctl.HeaderSize:k.size], reply); err != nil {
		closeFD(k.fd)
		return -1, timeUp(ctx, err)
	}
	if read != nil {
		read()
	}
	return k.fd, nil
}

// ask sends a request and waits for the answer.
func (l *link) ask(ctx context.Context, op ioctl.Op, m ioctl.Message, hold *region) (*call, error) {
	if err := l.takeSlot(ctx, op); err != nil {
		return nil, err
	}
	leads := l.attend()
	defer l.leave()
	k, err := l.begin(ctx, op, m, hold)
	if leads {
		l.lead(ctx, k.done)
	}
	if err != nil {
		return nil, err
	}
	select {
	case <-k.done:
		return k, nil
	case <-ctx.Done():
		return k, l.giveUp(ctx, k)
	}
}

// expired is the error of an operation that was not done because its context
// ended.
func expired(ctx context.Context, op string) *api.Error {
	e := api.ContextError(op, ctx.Err())
	if cause := context.Cause(ctx); cause != ctx.Err() { //nolint:errorlint // whether there is another
		e.Err = fmt.Errorf("%w: %w", ctx.Err(), cause)
	}
	return e
}

// timeUp makes the daemon's word that a request's time was up agree with the
// caller's context: the daemon may have been told before its own clock struck.
func timeUp(ctx context.Context, err error) error {
	var e *api.Error
	if ctx.Err() != nil && errors.As(err, &e) && (e.Code == api.ETIMEDOUT || e.Code == api.ECANCELED) {
		own := expired(ctx, e.Op)
		e.Code, e.Err = own.Code, own.Err
	}
	return err
}

// takeSlot waits for a slot for a request.
func (l *link) takeSlot(ctx context.Context, op ioctl.Op) error {
	if ctx.Err() != nil {
		return expired(ctx, op.Name())
	}
	if !l.mark.here() {
		return foreign(op.Name(), l.pid)
	}
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return expired(ctx, op.Name())
	}
}

// begin sends a request in the caller's slot, which it gives away. When it fails, the
// request was not sent, and the call has ended.
func (l *link) begin(ctx context.Context, op ioctl.Op, m ioctl.Message, hold *region) (*call, error) {
	k := &call{op: op, hold: hold, done: make(chan struct{}), fd: -1}
	if hold != nil {
		hold.keep()
	}
	l.mu.Lock()
	if l.dead != nil {
		defer l.mu.Unlock()
		l.finish(k)
		return k, unsent(op, l.dead)
	}
	l.lastCount++
	k.tag = tagOf(l.lastCount, 0, 0)
	l.calls[k.tag] = k
	l.mu.Unlock()
	h := ioctl.Header{Op: op, Tag: k.tag, Deadline: deadline(ctx)}
	if err := l.out.send(h, m); err != nil {
		if l.forget(k) {
			l.finish(k)
		}
		if errors.Is(err, ioctl.ErrTooLong) {
			return k, &api.Error{Code: api.EINVAL, Op: op.Name(), Err: err}
		}
		l.fail()
		return k, unsent(op, err)
	}
	return k, nil
}

// deadline returns the header's form of the context's deadline.
func deadline(ctx context.Context) uint32 {
	t, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	ms := (time.Until(t) + time.Millisecond - 1) / time.Millisecond
	return uint32(min(max(ms, 1), 1<<31))
}

// forget takes a call out of the table, and says whether it was still there.
func (l *link) forget(k *call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, there := l.calls[k.tag]
	delete(l.calls, k.tag)
	return there
}

// giveUp deals with a call whose context has ended. It returns nil if there is
// an answer after all.
func (l *link) giveUp(ctx context.Context, k *call) error {
	if l.out.unsend(k.tag) {
		if l.forget(k) {
			l.finish(k)
		}
		return expired(ctx, k.op.Name())
	}
	l.out.try(ioctl.Header{Op: ioctl.OpCancel}, &ioctl.Cancel{Tag: k.tag})
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-k.done:
		return nil
	case <-t.C:
	}
	l.mu.Lock()
	_, there := l.calls[k.tag]
	k.late = there
	l.mu.Unlock()
	if !there {
		<-k.done
		return nil
	}
	return overdue(ctx, k.op)
}
