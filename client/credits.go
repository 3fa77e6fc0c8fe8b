package client

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
)

// creditRetry is after which time a message is sent again that has no
// acknowledgement. The socket loses none.
const creditRetry = time.Second

// How long what needs no answer waits for a message to go with: acknowledgements, and
// what is given back that nobody has asked for.
const (
	creditAck    = 100 * time.Millisecond
	creditLinger = 10 * time.Millisecond
)

const (
	opAcquire = "credit acquire"
	opRelease = "credit release"
)

// CreditStats counts what a connection did with credits. See [Conn.CreditStats].
type CreditStats struct {
	Messages   uint64 // that were sent to the daemon
	CalledBack uint64 // call-backs that came
	GivenBack  uint64 // objects whose credits were given back because there were too many
	Refused    uint64 // times that the daemon lent a pool's handle nothing at all; it is asked again after a while
	Idle       int    // objects whose credits are cached and not held
	Hits       uint64 // reads served from the cache of objects
	Misses     uint64 // reads that were not, and might have been
	Bytes      int64  // in the cache of objects
}

// credits are a pool's credits on one connection: an owner that borrows from the
// daemon, and which objects its credits are of.
//
// The lock is not held while the owner is called, but for what takes no lock but
// the owner's own.
type credits struct {
	owner   *credit.Owner
	on      *linkCredits
	most    int    // objects of which nobody holds anything
	cache   *cache // nil: none
	of      *pool
	over    func() bool
	session uint64 // of the connection
	// socket is what they travel by; nil: something else, which never refuses. Changed
	// with mu.
	socket atomic.Pointer[socketEngine]

	messages   atomic.Uint64 // sent
	calledBack atomic.Uint64
	givenBack  atomic.Uint64 // objects
	downs      atomic.Uint64 // times that it was refused

	mu sync.Mutex
	// +checklocks:mu
	known map[layout.ObjectID]*known
	// +checklocks:mu
	idle list.List // of *known, which nobody holds; the last used one first
	// +checklocks:mu
	wait time.Duration // after a refusal
}

// known is an object of which there are credits, or may be.
type known struct {
	id     layout.ObjectID
	holds  int           // that there are, or are asked for
	opens  int           // of those, the ones of handles
	used   bool          // somebody has asked since this was cleared
	idle   *list.Element // nil while there are holds
	wanted bool          // called back while there were holds
	had    bool          // a credit was granted
	grants int           // that have come
	opened birth
	// spoiled is set when the connection itself has changed the object: versions that
	// were told before may not be those of what is there now. All goes back.
	spoiled atomic.Bool
}

// birth is what an open has learned of a committed mblock: what stays as it is as
// long as the version is the same. The zero birth: nothing.
type birth struct {
	version credit.Version
	created time.Time
	length  int64
}

// openCredits starts an owner that borrows through an engine of a connection.
func openCredits(id credit.OwnerID, e credit.Engine, o CreditOptions, keep *cache, of *pool, l *link) (*credits, error) {
	c := &credits{most: o.Cached, cache: keep, of: of, on: &l.credits, over: l.over.Load, known: make(map[layout.ObjectID]*known), wait: firstRefused}
	if s, ok := e.(*socketEngine); ok {
		c.socket.Store(s)
		c.session = s.l.limits.Session
	}
	switch {
	case o.Cached == 0:
		c.most = defaultCached
	case o.Cached < 0:
		c.most = 0
	}
	owner, err := credit.Open(credit.Options{
		Config: credit.Config{ID: id, Retry: creditRetry, Ack: creditAck}, Linger: creditLinger,
	}, &countedEngine{e, c})
	if err != nil {
		return nil, creditError(opAcquire, 0, err)
	}
	c.owner = owner
	return c, nil
}

// close ends the owner at once: what is held is lost.
func (c *credits) close() { c.owner.Abandon() }

// gone says whether the connection is gone, and all credits with it.
func (c *credits) gone() bool { return c.over() }

func (c *credits) resource(id layout.ObjectID) credit.Resource {
	return credit.Resource{Type: credit.Access, ID: uint64(id)}
}

// acquire waits until a credit on an object is granted or refused.
func (c *credits) acquire(ctx context.Context, id layout.ObjectID, r CreditRequest) (*Hold, error) {
	return c.acquireFor(ctx, id, r, false)
}

// acquireFor is acquire, for a handle or for another use.
func (c *credits) acquireFor(ctx context.Context, id layout.ObjectID, r CreditRequest, open bool) (*Hold, error) {
	want, err := r.credit(id)
	if err != nil {
		return nil, err
	}
	q := credit.Request{Resource: c.resource(id), Credit: want}
	if !r.Local {
		q.Flags = credit.MayBorrow | credit.MayRevoke
	}
	if r.Try {
		q.Flags |= credit.Try
	}
	if err := c.revive(); err != nil {
		return nil, err
	}
	k, before := c.enterAt(id)
	h, err := c.owner.Acquire(ctx, q)
	if err != nil {
		c.leave(k, false)
		if why := c.refused(); why != nil {
			return nil, why
		}
		if ctx.Err() != nil && (errors.Is(err, credit.ErrTimeout) || errors.Is(err, credit.ErrCanceled)) {
			e := expired(ctx, opAcquire)
			e.Object, e.Detail = id, "others hold what conflicts, or have waited for longer, or the daemon does not answer"
			return nil, e
		}
		return nil, creditError(opAcquire, id, err)
	}
	fresh := c.mark(k, open) != before
	hold := &Hold{h: h, c: c, k: k, open: open}
	// In this order: who changes it spoils it before the change is over.
	if !c.on.isChanging(c.key(id)) && !k.spoiled.Load() && (fresh || steady(id, r.Modes)) {
		hold.version = h.Version()
	}
	return hold, nil
}

// steady says whether nobody else changes an object while a credit is held or cached.
// Beside who reads a log others append to it, and erase it.
func steady(id layout.ObjectID, m CreditModes) bool {
	return id.Kind() != layout.KindMlog || m != CreditRead
}

func (c *credits) key(id layout.ObjectID) cacheKey { return cacheKey{c.of.uuid, id} }

// enter notes that somebody asks for a credit on an object, until leave.
func (c *credits) enter(id layout.ObjectID) *known {
	k, _ := c.enterAt(id)
	return k
}

// enterAt is enter, and says how many grants of the object have come before.
func (c *credits) enterAt(id layout.ObjectID) (k *known, grants int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k = c.known[id]; k == nil {
		k = &known{id: id}
		c.known[id] = k
	}
	if k.idle != nil {
		c.idle.Remove(k.idle)
		k.idle = nil
	}
	k.holds++
	k.used = true
	return k, k.grants
}

// mark notes that a credit was granted; open: for a handle. It returns how many have come.
func (c *credits) mark(k *known, open bool) (grants int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k.had = true
	if open {
		k.opens++
	}
	return k.grants
}

// leave notes that somebody holds none any more, or has got none. If too many are
// idle then, credits go back to the daemon.
func (c *credits) leave(k *known, open bool) {
	wanted, spoiled, old := c.left(k, open)
	if spoiled {
		c.renew(k)
	}
	if wanted {
		c.forget(k.id) // it went back when it was released
	}
	for _, id := range old {
		c.giveBack(id)
		c.givenBack.Add(1)
	}
}

// left returns whether the object's credit was wanted while it was held, whether it is
// spoiled, and the caller has the last hold still, and whose credits are to be given back.
func (c *credits) left(k *known, open bool) (wanted, spoiled bool, old []layout.ObjectID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if open {
		k.opens--
	}
	if k.holds > 1 {
		k.holds--
		return false, false, nil
	}
	wanted, k.wanted = k.wanted, false
	if k.spoiled.Load() {
		return wanted, true, nil
	}
	k.holds = 0
	if !k.had {
		delete(c.known, k.id)
		return wanted, false, nil
	}
	k.idle = c.idle.PushFront(k)
	for c.idle.Len() > c.most {
		k := c.idle.Remove(c.idle.Back()).(*known)
		delete(c.known, k.id)
		old = append(old, k.id)
	}
	return wanted, false, old
}

// callBack notes that an object's credit is called back, or was taken.
func (c *credits) callBack(id layout.ObjectID) {
	c.calledBack.Add(1)
	c.mu.Lock()
	if k := c.known[id]; k != nil && k.holds > 0 {
		k.wanted = true
	}
	c.mu.Unlock()
	c.forget(id)
}

// held says whether anybody holds a credit, or asks for one.
func (c *credits) held() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.known) > c.idle.Len()
}

// giveBack gives back what is cached of an object: its credits and its bytes.
func (c *credits) giveBack(id layout.ObjectID) {
	c.forget(id)
	c.owner.GiveBack(c.resource(id), credit.Access.All())
}

// learned returns what an earlier open has learned of an object, if it has these
// contents now.
func (c *credits) learned(id layout.ObjectID, v credit.Version) (birth, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.known[id]
	if k == nil || k.opened.created.IsZero() || k.opened.version != v {
		return birth{}, false
	}
	return k.opened, true
}

// learn notes what an open has learned.
func (c *credits) learn(id layout.ObjectID, b birth) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.known[id]; k != nil {
		k.opened = b
	}
}

// forget drops the bytes of an object.
func (c *credits) forget(id layout.ObjectID) {
	if c.cache != nil {
		c.cache.drop(c.key(id))
	}
}

// stats adds its counters to s.
func (c *credits) stats(s *CreditStats) {
	s.Messages += c.messages.Load()
	s.CalledBack += c.calledBack.Load()
	s.GivenBack += c.givenBack.Load()
	s.Refused += c.downs.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Idle += c.idle.Len()
}
