package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/mpool-go/mpool/api"
)

// Between tries to connect.
const (
	firstDelay = 10 * time.Millisecond // doubled each time
	lastDelay  = time.Second
	tryTimeout = 10 * time.Second // for one daemon to say hello
)

// attempt is a series of tries to connect, for all calls that wait for a
// connection. It ends with a connection, with an error that will not pass, or
// when nobody waits any more.
type attempt struct {
	cancel  context.CancelFunc
	waiters int // guarded by Conn.mu

	done chan struct{} // closed when it has ended
	err  error         // why without a connection; valid when done is closed
}

// begin begins an attempt to replace a link that is over.
//
// +checklocks:c.mu
func (c *Conn) begin(old *link) {
	if c.judged != old {
		c.judged = old
		if old.answered.Load() {
			c.delay, c.gate = 0, nil
		} else {
			c.later() // a daemon that says hello and goes
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &attempt{cancel: cancel, done: make(chan struct{})}
	c.try = a
	c.wg.Go(func() {
		a.err = c.connect(ctx, a)
		cancel()
		close(a.done)
	})
}

// leave ends a call's wait for an attempt. The last one ends the attempt.
func (c *Conn) leave(a *attempt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.waiters--; a.waiters == 0 && c.try == a {
		c.try = nil
		a.cancel()
	}
}

// lastError is why there is no connection yet.
func (c *Conn) lastError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		return errors.New("the daemon did not answer")
	}
	return c.last
}

// connect tries until there is a connection.
func (c *Conn) connect(ctx context.Context, a *attempt) error {
	for {
		c.mu.Lock()
		gate := c.gate
		c.mu.Unlock()
		if gate != nil {
			select {
			case <-gate:
			case <-ctx.Done():
				return c.conclude(a, nil, ctx.Err())
			}
		}
		l, err := c.dial(ctx)
		if err == nil || ctx.Err() != nil || hopeless(err) {
			return c.conclude(a, l, err)
		}
		c.mu.Lock()
		c.last = err
		c.later()
		c.mu.Unlock()
	}
}

// later puts the next try off.
//
// +checklocks:c.mu
func (c *Conn) later() {
	c.delay = longer(c.delay)
	gate := make(chan struct{})
	c.gate = gate
	time.AfterFunc(jittered(c.delay, rand.N), func() { close(gate) })
}

// longer returns the delay that follows a delay.
func longer(delay time.Duration) time.Duration {
	return min(max(2*delay, firstDelay), lastDelay)
}

// jittered returns a moment in the second half of a delay, by chance: many
// processes lose their daemon at the same moment, and are not to come back in step.
// random returns a number from 0 up to n, without n.
func jittered(delay time.Duration, random func(n time.Duration) time.Duration) time.Duration {
	return delay/2 + random(delay/2)
}

// conclude ends an attempt with a connection or an error, which it returns.
func (c *Conn) conclude(a *attempt, l *link, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.try == a {
		c.try = nil
	}
	switch {
	case c.closed:
		err = errClosed
	case l != nil && c.current.Load().over.Load():
		c.current.Store(l)
		c.last = nil
		return nil
	}
	if l != nil {
		l.die(errClosed) // nobody needs it
	}
	return err
}

// dial makes one connection.
func (c *Conn) dial(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	return connect(ctx, c.socket, c.pid, &c.wg)
}

// hopeless says whether another try would fail as well.
func hopeless(err error) bool {
	return errors.Is(err, api.ENOTSUP) || errors.Is(err, api.EPROTO) || errors.Is(err, api.EPERM)
}
