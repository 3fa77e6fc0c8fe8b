package credit

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"
)

// Options are of an owner that runs.
type Options struct {
	Config
	// Now is the owner's monotonic clock; nil: the time since it was opened.
	Now func() time.Duration
	// Linger is how long a Return that nobody has asked for is kept for another message
	// to go with; 0: it is sent at once. What is kept goes before anything is said about
	// it, so that nobody waits for it.
	Linger time.Duration
	// Fence, of the root, has tokens older than t refused for the atoms c of r where
	// the work is done ([Guard.Raise]). It is called before what conflicts is granted
	// to anybody, with the owner's lock held: it must not wait, nor call the owner.
	// Nil: nobody checks tokens.
	Fence func(r Resource, c Credit, t Token)
	// Fenced is told that a credit was taken from a debtor that did not give it back
	// in time. It is called like Fence. Nil: nobody wants to know.
	Fenced func(debtor OwnerID, r Resource, c Credit)
	// Evicted is told that a debtor that broke its bounds has nothing of a resource any
	// more, nor waits for it: its session was ended. It is called like Fence. Nil: nobody
	// wants to know.
	Evicted func(debtor OwnerID, r Resource)
	// Unfenced, of a root with Leaves and without leases, is told that all are gone
	// who had tokens of r that are older than what Fence was told: if nothing is done
	// for a debtor any more when its end is told, what Fence was told of r can be
	// forgotten ([Guard.Forget]). It is called like Fence. Nil: nobody wants to know.
	Unfenced func(r Resource)
}

// Owner is a [Book] that runs: calls block, messages travel by an [Engine],
// deadlines are kept. All its methods are safe for concurrent use.
//
// Who asks for something sends what follows from it, unless another goroutine is
// sending: that sends it, too, so that messages stay in order. An owner has one
// goroutine of its own, which keeps its time and sends what follows from what its
// creditor says; it ends with Close or Abandon. Nothing is sent while the lock is held.
type Owner struct {
	opt   Options
	wake  chan struct{} // there is something for the goroutine; has one place
	quit  chan struct{} // closed: the goroutine is to end
	ended chan struct{} // closed: it has
	empty chan struct{} // closed: everything was given back

	mu      sync.Mutex
	book    *Book            // +checklocks:mu
	calls   map[uint64]*call // +checklocks:mu
	holds   map[uint64]*Hold // +checklocks:mu
	outbox  []Message        // +checklocks:mu
	spare   []Message        // +checklocks:mu
	peers   []*localLink     // +checklocks:mu
	sending bool             // +checklocks:mu
	// +checklocks:mu
	sent  sync.Cond     // sending has become false
	armed time.Duration // +checklocks:mu
	// +checklocks:mu
	keep    time.Duration          // until when what is in the outbox may stay if it is unasked; 0: not at all
	debtors map[OwnerID]*localLink // +checklocks:mu
	up      *connection            // +checklocks:mu
	stopped bool                   // +checklocks:mu
}

// call is an Acquire that waits.
type call struct {
	done  chan struct{}
	hold  *Hold
	code  Code
	limit *Limit
	lost  func() // the request's
}

// Open starts an owner: the root if the engine is nil, else one that borrows from
// the engine's creditor.
func Open(opt Options, e Engine) (*Owner, error) {
	if opt.ID == 0 {
		return nil, &Error{Code: ErrInvalid, Op: "open", Detail: "an owner has an id: give it one that nobody else has"}
	}
	if opt.Now == nil {
		start := time.Now() //nolint:forbidigo // the clock of who brings none
		opt.Now = func() time.Duration { return time.Since(start) }
	}
	opt.Creditor = 0
	if e != nil {
		opt.Creditor = e.Creditor()
	}
	o := &Owner{
		opt: opt, wake: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{}),
		empty: make(chan struct{}), calls: map[uint64]*call{}, holds: map[uint64]*Hold{},
		debtors: map[OwnerID]*localLink{}, armed: math.MaxInt64,
	}
	o.sent.L = &o.mu
	o.mu.Lock()
	defer o.mu.Unlock()
	if e != nil {
		if err := o.connect(e); err != nil {
			return nil, err
		}
	}
	o.book = NewBook(opt.Config, opt.Now())
	o.absorb()
	go o.run()
	return o, nil
}

// Acquire waits until the request is granted or cannot be. A context that ends
// is ErrCanceled, or ErrTimeout if its deadline passed.
func (o *Owner) Acquire(ctx context.Context, r Request) (*Hold, error) {
	o.mu.Lock()
	if o.stopped {
		o.mu.Unlock()
		return nil, o.refusal(r, ErrClosed)
	}
	id := o.book.Acquire(o.opt.Now(), r)
	c := &call{lost: r.Lost}
	o.calls[id] = c
	o.collect()
	if c.waits() {
		o.await(ctx, c)
	} else {
		o.flush()
	}
	if c.waits() {
		o.book.Cancel(o.opt.Now(), id)
		o.absorb()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && c.code == ErrCanceled {
			c.code = ErrTimeout
		}
	}
	o.mu.Unlock()
	if c.hold != nil {
		return c.hold, nil
	}
	e := o.refusal(r, c.code)
	e.Limit = c.limit
	return nil, e
}

// await sends what a call asks for and waits until there is an answer, or the context
// ends. It lets the lock go meanwhile.
//
// +checklocks:o.mu
func (o *Owner) await(ctx context.Context, c *call) {
	receives := false
	var w Waiter
	if o.up != nil {
		w, _ = o.up.link.(Waiter)
	}
	if w != nil {
		receives = w.Attend()
		defer w.Leave()
	}
	o.flush()
	done := make(chan struct{})
	if c.done = done; !c.waits() {
		close(done)
	}
	o.mu.Unlock()
	if receives {
		w.Receive(ctx, done)
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
	o.mu.Lock()
}

// refusal is the error of a request that was not granted.
func (o *Owner) refusal(r Request, code Code) *Error {
	details := [...]string{
		ErrBusy:       "others hold what conflicts, or wait for it: wait, too",
		ErrRemote:     "it would have to be borrowed or called back, which the request's flags do not allow",
		ErrNotFound:   "there is not that much of the resource",
		ErrTimeout:    "others held what conflicts for too long",
		ErrCanceled:   "the caller gave up",
		ErrClosed:     "this owner or its creditor is winding up",
		ErrNoCreditor: "the creditor is gone: connect to another",
		ErrInvalid:    "the request is for nothing, or for what the type does not have",
		ErrLimit:      "give back what is cached, release some, or make fewer requests at once",
		ErrDenied:     "whoever lends it does not lend it to this owner",
	}
	e := &Error{Code: code, Op: "acquire", Owner: o.opt.ID, Resource: r.Resource}
	if int(code) < len(details) {
		e.Detail = details[code]
	}
	return e
}

// Size returns how many resources and debtors the owner's book has: none, if
// nobody has anything of it and it has nothing.
func (o *Owner) Size() (resources, debtors int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.book.accounts), len(o.book.debtors)
}

// GiveBack gives what is cached of c back before it is asked for: see
// [Book.GiveBack].
func (o *Owner) GiveBack(r Resource, c Credit) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped {
		return
	}
	o.book.GiveBack(o.opt.Now(), r, c)
	o.collect()
	o.flush()
}

// Close winds the owner up: see [Book.Close]. It waits until everything is given
// back or the context ends, and stops the owner in either case.
func (o *Owner) Close(ctx context.Context) error {
	o.mu.Lock()
	if o.stopped {
		o.mu.Unlock()
		<-o.ended
		return nil
	}
	o.book.Close(o.opt.Now())
	o.absorb()
	o.mu.Unlock()
	var err error
	select {
	case <-o.empty:
	case <-o.ended: // abandoned
	case <-ctx.Done():
		err = &Error{
			Code: ErrTimeout, Op: "close", Owner: o.opt.ID,
			Detail: "something is held still: it is lost to its holder now",
		}
	}
	o.Abandon()
	return err
}

// Abandon ends the owner at once and gives nothing back, as if it had died.
func (o *Owner) Abandon() {
	o.mu.Lock()
	if o.stopped {
		o.mu.Unlock()
		<-o.ended
		return
	}
	o.stopped = true
	close(o.quit)
	o.mu.Unlock()
	<-o.ended
	o.mu.Lock()
	links, up := o.debtors, o.up
	o.debtors, o.up = map[OwnerID]*localLink{}, nil
	for id, c := range o.calls { // order does not matter: each is told
		c.finish(nil, ErrClosed)
		delete(o.calls, id)
	}
	for id, h := range o.holds { // order does not matter: each is told
		h.lose()
		delete(o.holds, id)
	}
	o.mu.Unlock()
	if up != nil {
		up.link.Close()
	}
	for _, l := range links { // order does not matter: each is told
		l.peer.Down()
	}
}

// +checklocks:o.mu
func (o *Owner) happened(e Event) {
	switch e.Kind {
	case Granted:
		h := &Hold{o: o, id: e.Request, resource: e.Resource, credit: e.Credit, token: e.Token, version: e.Version}
		h.taken = o.calls[e.Request].lost
		o.holds[e.Request] = h
		o.calls[e.Request].finish(h, 0)
		delete(o.calls, e.Request)
	case Failed:
		o.calls[e.Request].limit = e.Limit
		o.calls[e.Request].finish(nil, e.Code)
		delete(o.calls, e.Request)
	case CalledBack:
		if h := o.holds[e.Request]; !h.isWanted {
			h.isWanted = true
			tell(h.wanted)
		}
	case Waived:
		h := o.holds[e.Request]
		h.isWanted, h.wanted = false, nil
	case Lost:
		h := o.holds[e.Request]
		h.lose()
		if h.taken != nil {
			h.taken()
		}
	case Fence:
		if o.opt.Fence != nil {
			o.opt.Fence(e.Resource, e.Credit, e.Token)
		}
	case Fenced:
		if o.opt.Fenced != nil {
			o.opt.Fenced(e.Owner, e.Resource, e.Credit)
		}
	case Evicted:
		if o.opt.Evicted != nil {
			o.opt.Evicted(e.Owner, e.Resource)
		}
	case Unfenced:
		if o.opt.Unfenced != nil {
			o.opt.Unfenced(e.Resource)
		}
	case Closed:
		close(o.empty)
	}
}

// waits says whether there is no answer yet.
func (c *call) waits() bool { return c.hold == nil && c.code == 0 }

func (c *call) finish(h *Hold, code Code) {
	c.hold, c.code = h, code
	tell(c.done)
}

// tell closes a channel if somebody listens.
func tell(c chan struct{}) {
	if c != nil {
		close(c)
	}
}

// run sends what is to be sent and keeps the time.
func (o *Owner) run() {
	defer close(o.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		o.mu.Lock()
		now := o.opt.Now()
		if next, ok := o.book.Next(); ok && now >= next {
			o.book.Tick(now)
			o.absorb()
		}
		o.flush()
		next, ok := o.next()
		// What this was woken for may be over by now, and come again as soon: to keep the
		// time for it costs less than to be woken each time.
		if o.armed > now && o.armed != math.MaxInt64 && (!ok || o.armed < next) {
			next, ok = o.armed, true
		}
		o.armed = math.MaxInt64
		if ok {
			o.armed = next
		}
		o.mu.Unlock()
		var due <-chan time.Time
		if ok {
			timer.Reset(max(next-now, 0))
			due = timer.C
		}
		select {
		case <-o.wake:
		case <-due:
		case <-o.quit:
			o.mu.Lock()
			for o.sending {
				o.sent.Wait()
			}
			o.keep = 0
			o.flush()
			o.mu.Unlock()
			return
		}
	}
}
