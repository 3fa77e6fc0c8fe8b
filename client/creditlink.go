package client

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
)

// socketEngine carries messages between a pool's owner of credits and the daemon,
// on the session's socket. It is the engine and the link in one: there is one
// connection on it.
type socketEngine struct {
	l    *link
	pool ioctl.Handle
	tag  uint64
	peer atomic.Pointer[credit.Peer]
	why  atomic.Pointer[refusal] // the daemon takes no messages; nil: it does
}

// refusal is why the daemon takes no messages, and since when.
type refusal struct {
	err error
	at  time.Time
}

// How long nothing is asked of a daemon that takes no messages: it may have no room for
// them, or not for so many handles, and have some later.
const (
	firstRefused = 100 * time.Millisecond
	lastRefused  = 30 * time.Second
)

// overSocket is the engine of connections to a daemon.
func overSocket(l *link, _ *pool, h ioctl.Handle) (credit.Engine, credit.OwnerID, error) {
	return &socketEngine{l: l, pool: h, tag: l.newTag()}, credit.OwnerID(h), nil
}

// newTag returns a tag that no request has.
func (l *link) newTag() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastCount++
	return tagOf(l.lastCount, 0, 0)
}

// Creditor implements [credit.Engine].
func (*socketEngine) Creditor() credit.OwnerID { return ioctl.Creditor }

// Connect implements [credit.Engine].
func (e *socketEngine) Connect(_ credit.OwnerID, peer credit.Peer) (credit.Link, error) {
	e.peer.Store(&peer)
	return e, nil
}

// Send implements [credit.Link].
func (e *socketEngine) Send(m credit.Message) { e.SendAll([]credit.Message{m}) }

// SendAll implements [credit.Packer].
func (e *socketEngine) SendAll(list []credit.Message) {
	if !e.l.mark.here() {
		return // a child's word would be taken for its parent's
	}
	for len(list) > 0 {
		var m ioctl.CreditMessage
		m, list = ioctl.PackCredits(e.pool, list, e.l.limits.Features)
		e.send(&m)
	}
}

func (e *socketEngine) send(m *ioctl.CreditMessage) {
	err := e.l.out.sendCredit(ioctl.Header{Op: ioctl.OpCredit, Tag: e.tag}, m)
	switch {
	case err == nil, errors.Is(err, unix.EAGAIN):
	case errors.Is(err, ioctl.ErrTooLong):
		e.refuse(&api.Error{Code: api.EINVAL, Op: ioctl.OpCredit.Name(), Err: err, Detail: "a credit of too many pieces: ask for fewer ranges of one object"})
	default:
		e.l.fail()
	}
}

// Attend implements [credit.Waiter].
func (e *socketEngine) Attend() bool { return e.l.attend() }

// Receive implements [credit.Waiter].
func (e *socketEngine) Receive(ctx context.Context, done <-chan struct{}) { e.l.lead(ctx, done) }

// Leave implements [credit.Waiter].
func (e *socketEngine) Leave() { e.l.leave() }

// Close implements [credit.Link]. The end of the handle tells the daemon.
func (*socketEngine) Close() {}

// refuse ends the connection: the daemon takes no messages.
func (e *socketEngine) refuse(err error) {
	if e.why.CompareAndSwap(nil, &refusal{err, time.Now()}) { //nolint:forbidigo // how long it waits is of the machine's clock
		if p := e.peer.Load(); p != nil {
			(*p).Down()
		}
	}
}

// refused returns why the daemon takes no messages, or nil.
func (e *socketEngine) refused() error {
	if why := e.why.Load(); why != nil {
		return why.err
	}
	return nil
}

// refused returns why the daemon takes no messages of the owner, or nil.
func (c *credits) refused() error {
	if e := c.socket.Load(); e != nil {
		return e.refused()
	}
	return nil
}

// revive connects the owner anew if the daemon has taken no messages for a while: it is
// asked again. Else it returns why it takes none; nil: it does, or is being asked.
func (c *credits) revive() error {
	if c.refused() == nil {
		return nil
	}
	e := c.socket.Load()
	fresh := &socketEngine{l: e.l, pool: e.pool, tag: e.l.newTag()} // what comes for the old one is nobody's
	c.mu.Lock()
	why := e.why.Load()
	switch {
	case c.socket.Load() != e || why == nil: // another goroutine was faster
		c.mu.Unlock()
		return nil
	case errors.Is(why.err, api.ENOTSUP), time.Since(why.at) < c.wait:
		c.mu.Unlock()
		return why.err
	}
	c.wait = min(2*c.wait, lastRefused)
	c.socket.Store(fresh)
	c.mu.Unlock()
	_ = c.owner.Reconnect(&countedEngine{fresh, c}) //nolint:errcheck // who asks for a credit next hears of it
	return nil
}

// credited takes a message of credits, or the daemon's word that it takes none. It
// is the receiver's.
func (l *link) credited(h ioctl.Header, body []byte) {
	if h.Flags&ioctl.FlagError != 0 {
		if e := l.credits.engine(func(e *socketEngine) bool { return e.tag == h.Tag }); e != nil {
			e.refuse(decode(h, body, nil))
		}
		return
	}
	var m ioctl.CreditMessage
	err := ioctl.Decode(&m, body)
	if err == nil {
		err = m.Agreed(l.limits.Features)
	}
	if err != nil {
		l.die(&api.Error{Code: api.EPROTO, Detail: "the daemon broke the protocol", Err: err})
		return
	}
	e := l.credits.engine(func(e *socketEngine) bool { return e.pool == m.Pool })
	if e == nil || e.refused() != nil {
		return // the pool's handle was given up meanwhile
	}
	p := e.peer.Load()
	if p == nil {
		return
	}
	for c := range m.All() {
		c.From, c.To = ioctl.Creditor, credit.OwnerID(e.pool)
		(*p).Deliver(c)
	}
}
