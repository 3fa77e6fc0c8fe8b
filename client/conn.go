package client

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
)

// Conn is a connection to the daemon, made again when it breaks. It implements
// [api.Manager]. Safe for concurrent use.
type Conn struct {
	socket    string
	reconnect time.Duration // see Options; negative: never
	pid       int           // of the process that dialed
	wg        sync.WaitGroup

	credits *CreditOptions // nil: the daemon alone minds them
	cache   *cache         // of objects; nil: none
	// engine makes what a pool's credits travel by on a connection.
	engine func(l *link, p *pool, h ioctl.Handle) (credit.Engine, credit.OwnerID, error)

	// current is the connection in use; never nil. When it is over the next
	// call makes another.
	current atomic.Pointer[link]

	mu sync.Mutex
	// +checklocks:mu
	closed bool
	// +checklocks:mu
	try *attempt // under way, or nil
	// +checklocks:mu
	judged *link // the last one whose end changed delay
	// +checklocks:mu
	delay time.Duration // before the next try; 0: at once
	// +checklocks:mu
	gate chan struct{} // closed when the next try may be made; nil: now
	// +checklocks:mu
	last error // of the last try
}

// Close ends the connection for good. The daemon takes back what it had: uncommitted
// objects are gone, what was committed and synced stays. Calls in flight end as
// if the daemon had died; later ones fail.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.try != nil {
		c.try.cancel()
	}
	l := c.current.Load() // no other comes after it
	c.mu.Unlock()
	l.die(errClosed)
	c.wg.Wait()
	return nil
}

// repeats is how often a call makes its request again on another connection
// after it was lost: the request may be what kills the daemon.
const repeats = 4

// mode is how a call deals with the loss of its request.
type mode int

const (
	once  mode = iota // it is not made again once it was sent
	again             // it changes nothing: made again
)

// run calls f with a connection, and again with another while the request that
// f made is lost and may be made again. f returns an error that has a lostError
// for that, and for nothing else.
func (c *Conn) run(ctx context.Context, op ioctl.Op, m mode, f func(l *link) error) error {
	var p patience
	defer p.end()
	for left := repeats; ; {
		l, err := c.link(ctx, op, &p)
		if err != nil {
			return err
		}
		err = f(l)
		e := lostIn(err)
		switch {
		case e == nil:
			return err
		case !e.sent: // as if it had never been
		case m == once || left == 0:
			return err
		default:
			left--
		}
	}
}

// ask makes a request that changes nothing, and returns the answer.
func ask[R any, M interface {
	*R
	ioctl.Message
}](ctx context.Context, c *Conn, op ioctl.Op, m ioctl.Message,
) (R, error) {
	var reply R
	err := c.run(ctx, op, again, func(l *link) error {
		var fresh R
		err := l.do(ctx, op, m, M(&fresh))
		reply = fresh
		return err
	})
	return reply, err
}

// change makes a request that changes something.
func (c *Conn) change(ctx context.Context, op ioctl.Op, m, reply ioctl.Message) error {
	return c.run(ctx, op, once, func(l *link) error { return l.do(ctx, op, m, reply) })
}

// patience is how long one call waits for connections, all in all: until its
// context ends, which is made when it is first needed.
type patience struct {
	ctx    context.Context
	cancel context.CancelFunc
}

func (p *patience) end() {
	if p.cancel != nil {
		p.cancel()
	}
}

// link returns the connection, or waits until there is one again.
func (c *Conn) link(ctx context.Context, op ioctl.Op, p *patience) (*link, error) {
	if l := c.current.Load(); !l.over.Load() {
		return l, nil
	}
	return c.await(ctx, op, p)
}

// await waits for a connection: no longer than the context, nor than the call's
// patience.
func (c *Conn) await(ctx context.Context, op ioctl.Op, p *patience) (*link, error) {
	if os.Getpid() != c.pid {
		return nil, foreign(op.Name(), c.pid)
	}
	if ctx.Err() != nil {
		return nil, expired(ctx, op.Name())
	}
	if p.ctx == nil {
		p.ctx, p.cancel = context.WithTimeout(ctx, c.reconnect)
	}
	a, l, err := c.join(op)
	if a == nil {
		return l, err
	}
	defer c.leave(a)
	select {
	case <-a.done:
		if a.err != nil {
			return nil, gone(op.Name(), a.err)
		}
		return c.current.Load(), nil
	case <-p.ctx.Done():
	}
	if ctx.Err() != nil {
		return nil, expired(ctx, op.Name())
	}
	e := gone(op.Name(), c.lastError())
	e.Detail = fmt.Sprintf("the connection to the daemon is gone, and no other was to be had in %v", c.reconnect)
	return nil, e
}

// join returns the attempt to connect that is under way, with the caller among
// those who wait for it; it begins one if there is none. Without an attempt it
// returns the connection that there is, or why there is none.
func (c *Conn) join(op ioctl.Op) (*attempt, *link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.current.Load()
	switch {
	case c.closed:
		return nil, nil, gone(op.Name(), errClosed)
	case !l.over.Load():
		return nil, l, nil
	case c.reconnect < 0:
		return nil, nil, gone(op.Name(), l.why())
	}
	if c.try == nil {
		c.begin(l)
	}
	c.try.waiters++
	return c.try, nil, nil
}

var _ api.Manager = (*Conn)(nil)
