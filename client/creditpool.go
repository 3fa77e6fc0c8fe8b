package client

import (
	"context"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// Credits is what the pools of a connection with Options.Credits have beside
// [api.Pool].
type Credits interface {
	// AcquireCredit waits until a credit on an object is granted, and holds it. The
	// context's deadline counts. Errors: EBUSY and EAGAIN (see [CreditRequest]; also
	// EAGAIN: too much is asked for or held, or too many handles borrow; the daemon is
	// asked again, after a while if it lends nothing at all), EINVAL, ENOTSUP (the connection was
	// made without Options.Credits, or the daemon has none), ENOENT.
	AcquireCredit(ctx context.Context, id layout.ObjectID, r CreditRequest) (*Hold, error)
	// GiveBackCredit gives what is cached of an object, its credits and its bytes,
	// back to the daemon before anybody asks. What is held stays. The daemon hears of it
	// with what the connection says next about credits, within about 10 ms.
	GiveBackCredit(id layout.ObjectID)
	// RevokeCredit calls all credits on an object back from whoever has them and waits
	// until they are given back, or taken at the daemon's deadline for call-backs: their
	// holders are fenced. Errors: EPERM (others than the caller's user have some),
	// ENOENT.
	RevokeCredit(ctx context.Context, id layout.ObjectID) error
}

var _ Credits = (*pool)(nil)

// useCredits is of Dial.
func (c *Conn) useCredits(o CreditOptions) {
	c.credits = &o
	if o.Bytes > 0 {
		c.cache = newCache(o.Bytes)
	}
	c.engine = overSocket
}

// CreditStats returns what the connection that there is has done with credits, all
// pools together. All but Hits, Misses and Bytes begin anew with another connection.
func (c *Conn) CreditStats() CreditStats {
	var s CreditStats
	for _, x := range c.current.Load().credits.all() {
		x.stats(&s)
	}
	if c.cache != nil {
		c.cache.stats(&s)
	}
	return s
}

// AcquireCredit implements [Credits].
func (p *pool) AcquireCredit(ctx context.Context, id layout.ObjectID, r CreditRequest) (*Hold, error) {
	if p.c.credits == nil {
		return nil, &api.Error{Code: api.ENOTSUP, Op: opAcquire, Object: id, Detail: "the connection was made without credits: dial with Options.Credits"}
	}
	var h *Hold
	err := p.run(ctx, ioctl.OpCredit, again, func(l *link, pool ioctl.Handle) error {
		c, err := l.creditsOf(p, pool)
		if err != nil {
			return err
		}
		h, err = c.acquire(ctx, id, r)
		if api.CodeOf(err) == api.ECONNRESET {
			return lost(ioctl.OpCredit, err) // with the connection; another may be had
		}
		return err
	})
	return h, err
}

// GiveBackCredit implements [Credits].
func (p *pool) GiveBackCredit(id layout.ObjectID) {
	if c := p.c.current.Load().credits.of(p); c != nil {
		c.giveBack(id)
	}
}

// linkCredits are the credits of all pools on one connection.
type linkCredits struct {
	mu sync.Mutex
	// +checklocks:mu
	pools []*credits
	// +checklocks:mu
	ended bool
	// +checklocks:mu
	changing map[cacheKey]int // objects that the connection itself changes just now
	changes  atomic.Int32     // how many there are in changing
}

// engine returns one of the engines, or nil.
func (s *linkCredits) engine(is func(e *socketEngine) bool) *socketEngine {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.pools {
		if e := c.socket.Load(); e != nil && is(e) {
			return e
		}
	}
	return nil
}

// creditsOf returns the credits of a pool on a connection, of which h is the
// handle.
func (l *link) creditsOf(p *pool, h ioctl.Handle) (*credits, error) {
	if !l.mark.here() {
		return nil, foreign(opAcquire, l.pid)
	}
	s := &l.credits
	if c := s.of(p); c != nil {
		return c, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.ofLocked(p); c != nil {
		return c, nil
	}
	if s.ended {
		return nil, unsent(ioctl.OpCredit, l.why())
	}
	if err := p.live(ioctl.OpCredit); err != nil {
		return nil, err // who closes it ends what there is, once
	}
	e, id, err := p.c.engine(l, p, h)
	if err != nil {
		return nil, err
	}
	c, err := openCredits(id, e, *p.c.credits, p.c.cache, p, l)
	if err != nil {
		return nil, err
	}
	s.pools = append(s.pools, c)
	return c, nil
}

// of returns the credits of a pool, or nil.
func (s *linkCredits) of(p *pool) *credits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ofLocked(p)
}

// +checklocks:s.mu
func (s *linkCredits) ofLocked(p *pool) *credits {
	for _, c := range s.pools {
		if c.of == p {
			return c
		}
	}
	return nil
}

// all returns the credits of all pools.
func (s *linkCredits) all() []*credits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.pools)
}

// leave ends the credits of a pool whose handle was given up.
func (s *linkCredits) leave(p *pool) {
	s.mu.Lock()
	c := s.ofLocked(p)
	s.pools = slices.DeleteFunc(s.pools, func(x *credits) bool { return x == c })
	s.mu.Unlock()
	if c != nil {
		c.close()
	}
}

// end ends all credits, with their connection: what is held is lost.
func (s *linkCredits) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	for _, c := range s.all() {
		c.close()
	}
}

// RevokeCredit implements [Credits].
func (p *pool) RevokeCredit(ctx context.Context, id layout.ObjectID) error {
	const op = ioctl.OpCreditRevoke
	return p.run(ctx, op, again, func(l *link, h ioctl.Handle) error {
		return l.do(ctx, op, &ioctl.Find{Pool: h, ID: id}, &ioctl.Empty{})
	})
}

// The states of a [CreditInfo].
const (
	CreditGranted    = ioctl.CreditGranted    // lent to a connection, which holds it or keeps it
	CreditHeld       = ioctl.CreditHeld       // held by a handle, or by an operation under way
	CreditCalledBack = ioctl.CreditCalledBack // either, and somebody waits for it
	CreditWaiting    = ioctl.CreditWaiting    // asked for
)

// CreditEnd is CreditInfo.End if the range has no end.
const CreditEnd uint64 = credit.End

type (
	// CreditInfo is a range of what somebody has of an object, or waits for.
	CreditInfo = ioctl.CreditInfo
	// CreditPlace is where a CreditInfo is in the list.
	CreditPlace = ioctl.CreditCursor
)

// EachCredit iterates over the credits on the objects of an active pool, in the
// order of the objects' ids. Administrators see everybody's, others those of their
// own user. When the connection breaks after the first was given, the loop ends with
// ECONNRESET.
func (c *Conn) EachCredit(ctx context.Context, pool string) iter.Seq2[CreditInfo, error] {
	const op = ioctl.OpCreditList
	return func(yield func(CreditInfo, error) bool) {
		s := stream[CreditInfo]{yield: yield}
		err := c.run(ctx, op, again, func(l *link) error {
			for ask := (&ioctl.CreditList{Pool: pool}); ; {
				reply := &ioctl.CreditsReply{}
				if err := l.do(ctx, op, ask, reply); err != nil {
					return s.broken(op, err)
				}
				if !s.give(reply.Credits) || !reply.More || len(reply.Credits) == 0 {
					return nil
				}
				ask.After = reply.Credits[len(reply.Credits)-1].CreditCursor
			}
		})
		s.end(err)
	}
}
