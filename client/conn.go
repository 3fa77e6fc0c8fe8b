package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// grace is how long a call whose context has ended waits for the daemon to say
// what became of its request.
const grace = 250 * time.Millisecond

// courtesy bounds calls that have no context.
const courtesy = 10 * time.Second

// Conn is a connection to the daemon. It implements [api.Manager]. Safe for
// concurrent use.
type Conn struct {
	conn   *net.UnixConn
	limits *ioctl.HelloReply
	slots  chan struct{} // a token per request in flight
	out    sender
	arenas arenas
	wg     sync.WaitGroup // the receiver, the sender, and who gives back what came late

	mu sync.Mutex
	// +checklocks:mu
	calls map[uint64]*call // in flight, by tag
	// +checklocks:mu
	lastTag uint64
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

	late bool // nobody waits any more; guarded by Conn.mu
}

var buffers = sync.Pool{New: func() any { return new([ioctl.MaxMessage]byte) }}

func getBuffer() *[ioctl.MaxMessage]byte  { return buffers.Get().(*[ioctl.MaxMessage]byte) }
func putBuffer(b *[ioctl.MaxMessage]byte) { buffers.Put(b) }

func newConn(u *net.UnixConn, limits *ioctl.HelloReply) (*Conn, error) {
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, u.Close())
	}
	c := &Conn{
		conn: u, limits: limits, calls: make(map[uint64]*call),
		slots: make(chan struct{}, max(limits.MaxRequests, 1)),
	}
	c.out.init(c, raw)
	c.arenas.init(c)
	c.wg.Go(c.receive)
	return c, nil
}

// Close ends the connection. The daemon takes back what it had: uncommitted
// objects are gone, what was committed and synced stays.
func (c *Conn) Close() error {
	c.die(errors.New("closed by the program"))
	c.wg.Wait()
	return nil
}

// die ends the connection for the first reason given. All calls fail.
func (c *Conn) die(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != nil {
		return
	}
	c.dead = cause
	_ = c.conn.Close() // nothing to lose
	for tag, k := range c.calls {
		delete(c.calls, tag)
		k.err = cause
		c.finish(k)
	}
	c.arenas.close()
}

// finish says that the daemon is done with the call, or never will be.
func (c *Conn) finish(k *call) {
	k.end()
	<-c.slots
}

func (k *call) end() {
	if k.hold != nil {
		k.hold.drop()
	}
	close(k.done)
}

// spawn starts a goroutine that Close waits for, unless the connection is gone.
func (c *Conn) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != nil {
		return false
	}
	c.wg.Go(f) // the receiver still runs: it ends after dead is set
	return true
}

// do makes a request and waits for the answer, which it reads into reply.
func (c *Conn) do(ctx context.Context, op ioctl.Op, m, reply ioctl.Message) error {
	return c.exchange(ctx, op, m, reply, nil, nil)
}

// exchange is do for requests with more than a message: hold is memory that the
// daemon uses meanwhile; read is called with the decoded reply before its
// buffer is used again.
func (c *Conn) exchange(ctx context.Context, op ioctl.Op, m, reply ioctl.Message, hold *region, read func()) error {
	fd, err := c.exchangeFD(ctx, op, m, reply, hold, read)
	closeFD(fd) // none was asked for
	return err
}

// exchangeFD is exchange for an answer that comes with a descriptor, which it
// returns, or -1.
func (c *Conn) exchangeFD(ctx context.Context, op ioctl.Op, m, reply ioctl.Message, hold *region, read func()) (int, error) {
	k, err := c.begin(ctx, op, m, hold)
	if err != nil {
		return -1, err
	}
	select {
	case <-k.done:
	case <-ctx.Done():
		if err := c.giveUp(ctx, k); err != nil {
			return -1, err
		}
	}
	if k.err != nil {
		return -1, c.lost(k, k.err)
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

// lost is the error of a call that will not be answered.
func (c *Conn) lost(k *call, cause error) error {
	e := gone(k.op.Name(), cause)
	if k.op.Mutates() {
		return &api.Error{Code: api.EUNKNOWN, Op: e.Op, Err: e, Detail: "whether it was done is unknown"}
	}
	return e
}

// begin sends a request. When it fails, the request was not sent.
func (c *Conn) begin(ctx context.Context, op ioctl.Op, m ioctl.Message, hold *region) (*call, error) {
	if ctx.Err() != nil {
		return nil, expired(ctx, op.Name())
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, expired(ctx, op.Name())
	}
	return c.beginHeld(ctx, op, m, hold)
}

// beginHeld is begin for a caller that has a slot, which it gives away.
func (c *Conn) beginHeld(ctx context.Context, op ioctl.Op, m ioctl.Message, hold *region) (*call, error) {
	k := &call{op: op, hold: hold, done: make(chan struct{}), fd: -1}
	if hold != nil {
		hold.keep()
	}
	c.mu.Lock()
	if c.dead != nil {
		defer c.mu.Unlock()
		c.finish(k)
		return nil, gone(op.Name(), c.dead)
	}
	c.lastTag++
	k.tag = c.lastTag
	c.calls[k.tag] = k
	c.mu.Unlock()
	h := ioctl.Header{Op: op, Tag: k.tag, Deadline: deadline(ctx)}
	if err := c.out.send(h, m); err != nil {
		if c.forget(k) {
			c.finish(k)
		}
		if errors.Is(err, ioctl.ErrTooLong) {
			return nil, &api.Error{Code: api.EINVAL, Op: op.Name(), Err: err}
		}
		c.die(err)
		return nil, gone(op.Name(), err)
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
func (c *Conn) forget(k *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, there := c.calls[k.tag]
	delete(c.calls, k.tag)
	return there
}

// giveUp deals with a call whose context has ended. It returns nil if there is
// an answer after all.
func (c *Conn) giveUp(ctx context.Context, k *call) error {
	if c.out.unsend(k.tag) {
		if c.forget(k) {
			c.finish(k)
		}
		return expired(ctx, k.op.Name())
	}
	c.out.try(ioctl.Header{Op: ioctl.OpCancel}, &ioctl.Cancel{Tag: k.tag})
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-k.done:
		return nil
	case <-t.C:
	}
	c.mu.Lock()
	_, there := c.calls[k.tag]
	k.late = there
	c.mu.Unlock()
	if !there {
		<-k.done
		return nil
	}
	e := expired(ctx, k.op.Name())
	if k.op.Mutates() {
		return &api.Error{Code: api.EUNKNOWN, Op: e.Op, Err: e, Detail: "the daemon did not say in time whether it was done"}
	}
	return e
}
