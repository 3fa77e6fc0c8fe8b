package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// creditor is where the credits of a pool's objects come from. What clients have
// asked for is in its book under their links. What their handles and operations
// do is there too, as claims, but only for objects that a link has something of or
// asks for (they are watched): what handles do to each other is for the pool to
// say, and while no client knows of credits nothing is done for them but one hold
// for each delete.
//
//	the handle is in its table          the object is watched
//	then: is the object watched?        then: which handles are in the tables?
//	yes: a claim                        for each: a claim
//
// One of the two sees the other, so no handle on a watched object is without
// its claim. A claim that is taken ends its handle.
type creditor struct {
	srv    *Server
	pool   *activePool
	root   *credit.Owner
	atOnce context.Context // it has ended: for who must not wait

	watching atomic.Int32  // objects
	fenced   atomic.Uint64 // credits taken from who did not give them back in time
	messages atomic.Uint64 // from clients

	mu sync.Mutex
	// +checklocks:mu
	watched map[layout.ObjectID]*watch
	// +checklocks:mu
	claims map[resource][]*claim

	// leaf is taken also with the root's lock held, and nothing under it.
	leaf sync.Mutex
	// +checklocks:leaf
	links map[credit.OwnerID]*creditLink
	// +checklocks:leaf
	lastLink credit.OwnerID
	// +checklocks:leaf
	evicted map[credit.OwnerID][]credit.Resource // what links had that broke their bounds, until they see to it
	// +checklocks:leaf
	ending map[layout.ObjectID]*ending
	// +checklocks:leaf
	closed bool
	fences sync.WaitGroup // goroutines that end handles; none begins once it is closed
	quit   chan struct{}  // closed: they wait for nothing
}

// watch is a watched object.
type watch struct {
	ready  chan struct{}       // closed: all handles that there were have their claims
	failed bool                // one could not have it; set before ready
	pins   int                 // who is about to ask for something
	claims map[*claim]struct{} // nil: none yet
	writes int                 // of claims, those to write
}

// add enters a claim.
func (w *watch) add(x *claim) {
	if w.claims == nil {
		w.claims = make(map[*claim]struct{})
	}
	w.claims[x] = struct{}{}
	if x.writes() {
		w.writes++
	}
}

// drop takes a claim out.
func (w *watch) drop(x *claim) {
	if _, there := w.claims[x]; there {
		delete(w.claims, x)
		if x.writes() {
			w.writes--
		}
	}
}

// claim is what a handle does to an object.
type claim struct {
	id   layout.ObjectID
	s    *session
	v    resource
	hold *credit.Hold
}

// writes says whether the claim is to write.
func (x *claim) writes() bool { return x.hold.Credit()[0].Modes == credit.Write }

// ending is the handles on an object that are being ended.
type ending struct {
	n    int
	over chan struct{}
}

// firstLink is above the numbers of requests, which the list of credits has
// beside those of links.
const firstLink = 1 << 48

// tokenBits are those of a token's first word that number the grants of one activation
// of a pool: years of them at any rate. The others are the activation's epoch, so that
// tokens rise when the daemon or the pool begins anew.
const tokenBits = 42

func newCreditor(ctx context.Context, srv *Server, a *activePool) (*creditor, error) {
	info, err := a.pool.Info(ctx)
	if err != nil {
		return nil, err
	}
	c := &creditor{
		srv: srv, pool: a, atOnce: over(), quit: make(chan struct{}),
		watched: make(map[layout.ObjectID]*watch), claims: make(map[resource][]*claim),
		links: make(map[credit.OwnerID]*creditLink), lastLink: firstLink, ending: make(map[layout.ObjectID]*ending),
		evicted: make(map[credit.OwnerID][]credit.Resource),
	}
	root, err := credit.Open(credit.Options{
		Config: credit.Config{
			ID: ioctl.Creditor, CallBack: max(srv.opt.CallBack, 0), Retry: noRetry, Ack: creditAck,
			MaxRequests: ioctl.MaxSpans, MaxUnacked: maxUnacked, FirstToken: info.Epoch << tokenBits,
			Capital: func(r credit.Resource) credit.Credit {
				if r.Type == credit.Access {
					return r.Type.All()
				}
				return nil // nobody looks whether space and activation are used
			},
		},
		Fenced: c.tellFenced, Evicted: c.tellEvicted,
	}, nil)
	c.root = root
	return c, err
}

// creditAck is how long what a client gives back waits to be acknowledged with the next
// grant: well below the time after which it would send it again.
const creditAck = 100 * time.Millisecond

// noRetry is after how long what a socket has taken is sent again: it loses
// nothing, and to a client that was stopped more and more would be sent.
const noRetry = 100 * 365 * 24 * time.Hour

// close ends it. No handle of the pool is left, or the daemon ends.
func (c *creditor) close() {
	c.root.Abandon()
	c.leaf.Lock()
	if !c.closed {
		c.closed = true
		close(c.quit)
	}
	c.leaf.Unlock()
	c.fences.Wait()
}

func objectOf(id layout.ObjectID) credit.Resource {
	return credit.Resource{Type: credit.Access, ID: uint64(id)}
}

func wholeOf(m credit.Modes) credit.Credit {
	return credit.Credit{{First: 0, End: credit.End, Modes: m}}
}

// answerTime is how long a client has to say whether it holds what is to be had
// without waiting for who does.
const answerTime = time.Second

// acquire takes a credit on a whole object for a session. What others have cached is
// called back; what they hold is EBUSY. Who does not answer is waited for as one
// who holds, until it is fenced, unless that is never. If lost is nil it is for
// something that runs to its end, and so not taken.
func (c *creditor) acquire(ctx context.Context, s *session, id layout.ObjectID, m credit.Modes, lost func()) (*credit.Hold, error) {
	q := credit.Request{
		Resource: objectOf(id), Credit: wholeOf(m), Flags: credit.MayBorrow | credit.MayRevoke | credit.Try,
		Group: s.id, Lost: lost, Keep: lost == nil,
	}
	soon, cancel := context.WithTimeout(ctx, answerTime)
	hold, err := c.root.Acquire(soon, q)
	cancel()
	if errors.Is(err, credit.ErrTimeout) && ctx.Err() == nil {
		if c.srv.opt.CallBack < 0 {
			return nil, c.busy(s, id, m)
		}
		q.Flags &^= credit.Try
		hold, err = c.root.Acquire(ctx, q)
	}
	switch {
	case err == nil:
		return hold, nil
	case errors.Is(err, credit.ErrBusy), ctx == c.atOnce: // that one does not wait, whatever is called back
		return nil, c.busy(s, id, m)
	case ctx.Err() != nil:
		return nil, api.ContextError("", context.Cause(ctx))
	}
	return nil, &api.Error{Code: api.EBADF, Object: id, Detail: "the pool is being deactivated", Err: err}
}

// busy says who has credits that are in the way. Others' processes are named to
// administrators only.
func (c *creditor) busy(s *session, id layout.ObjectID, m credit.Modes) error {
	e := &api.Error{Code: api.EBUSY, Object: id, Detail: "others hold credits on it", Err: credit.ErrBusy}
	held := make(map[*session]uint32)
	for _, l := range c.root.Loans(objectOf(id)) {
		if !l.Waits && l.Group != s.id && credit.Access.Conflict(l.Credit, wholeOf(m)) {
			if by := c.srv.sessionOf(l.Group); by != nil {
				held[by]++
			}
		}
	}
	for _, by := range c.srv.all() { // in their order
		n := held[by]
		if n == 0 {
			continue
		}
		h := api.Holder{References: n}
		if s.peer.admin || by.peer.pid == s.peer.pid {
			h.PID = by.peer.pid
			e.Detail += fmt.Sprintf("; session %d of process %d", by.id, h.PID)
		}
		e.Holders = append(e.Holders, h)
	}
	e.Detail += ": wait until they let go, or acquire the credit and wait for that"
	return e
}

// during does what needs a credit on whole objects, such as deleting them. The session's
// end ends the wait for that, not what is done.
func (c *creditor) during(ctx context.Context, s *session, ids []layout.ObjectID, m credit.Modes, do func() error) error {
	wait, letGo := s.untilEnd(ctx)
	defer letGo()
	for _, id := range ids {
		hold, err := c.acquire(wait, s, id, m, nil)
		if c.watching.Load() != 0 {
			c.review(id) // what was in the way may have been taken from the last link
		}
		if err != nil {
			return err
		}
		defer func() {
			_ = hold.Release(credit.Version{}) //nolint:errcheck // it is over
		}()
	}
	return do()
}
