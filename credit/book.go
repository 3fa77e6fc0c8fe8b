package credit

import (
	"slices"
	"time"
)

// Book is all that one owner knows of credits: what it has, of whom, and who
// has it of it. It is a state machine: each method is a step, given the time,
// and leaves messages and events behind for [Book.Take]. It starts nothing,
// waits for nothing, and does the same whenever it is told the same. It is not
// safe for concurrent use.
type Book struct {
	cfg      Config
	now      time.Duration
	next     time.Duration // when Tick is due; 0: never
	grace    time.Duration // when it ends
	dirty    bool          // next is to be computed anew
	level    int           // of this owner; known once the session is there
	issued   uint64        // this lender's word of the last token
	serial   uint64        // numbers accounts and requests
	accounts map[Resource]*account
	active   []*account // those where something is awaited
	local    map[uint64]*request
	debtors  []*debtor
	byID     map[OwnerID]*debtor
	losers   map[OwnerID]*losses // with Leaves: debtors whose end was not told yet
	lost     map[Resource]int    // and how many of them there are
	up       *upstream           // nil at the root
	closing  bool
	closed   bool
	messages []Message
	events   []Event
}

// NewBook returns the book of an owner that has nothing yet; the root has
// everything.
func NewBook(cfg Config, now time.Duration) *Book {
	if cfg.Retry <= 0 {
		cfg.Retry = 100 * time.Millisecond
	}
	if cfg.MaxRequests <= 0 {
		cfg.MaxRequests = 1024
	}
	if cfg.MaxSpans <= 0 {
		cfg.MaxSpans = 16384
	}
	if cfg.MaxUnacked <= 0 {
		cfg.MaxUnacked = unackedMost * cfg.MaxRequests
	}
	b := &Book{
		cfg: cfg, now: now, issued: cfg.FirstToken,
		accounts: map[Resource]*account{}, local: map[uint64]*request{}, byID: map[OwnerID]*debtor{},
		losers: map[OwnerID]*losses{}, lost: map[Resource]int{},
	}
	if cfg.Creditor != 0 {
		b.up = &upstream{id: cfg.Creditor}
		b.hello()
	} else if cfg.Grace > 0 {
		b.grace = now + cfg.Grace
	}
	b.schedule()
	return b
}

// Take returns the messages and events since it was last called. A [Fence]
// event is acted upon before a message is sent.
func (b *Book) Take() ([]Message, []Event) {
	m, e := b.messages, b.events
	b.messages, b.events = nil, nil
	return m, e
}

// giveMemory gives the memory of messages that Take has returned to be used again.
func (b *Book) giveMemory(m []Message) {
	if b.messages == nil {
		b.messages = reuse(m)
	}
}

// Next returns when Tick is to be called at the latest, and whether it must be at
// all.
func (b *Book) Next() (at time.Duration, ok bool) { return b.next, b.next != 0 }

// Tick does what is due.
func (b *Book) Tick(now time.Duration) {
	b.begin(now)
	b.end()
}

// Acquire enters a request and returns its number. [Granted] or [Failed] follow,
// often in this step. A granted credit is held until Release.
func (b *Book) Acquire(now time.Duration, r Request) uint64 {
	b.begin(now)
	b.serial++
	q := &request{
		id: b.serial, res: r.Resource, want: r.Credit, amount: r.Amount, least: r.Amount,
		flags: r.Flags, deadline: r.Deadline, group: b.cfg.Group, keep: r.Keep && b.up == nil,
	}
	if r.Group != 0 {
		q.group, q.named = r.Group, true
	}
	b.local[q.id] = q
	switch {
	case !b.valid(q):
		b.fail(nil, q, ErrInvalid)
	case b.closing:
		b.fail(nil, q, ErrClosed)
	case q.deadline != 0 && q.deadline <= b.now:
		b.fail(nil, q, ErrTimeout)
	default:
		b.enter(q)
	}
	b.end()
	return q.id
}

// Release ends the hold of a granted request: what it held becomes cached, or
// goes back if it was called back. Version is what the holder has made of the
// resource, or zero. It returns ErrStale if the credit was lost, and ErrInvalid
// if there is no such hold.
func (b *Book) Release(now time.Duration, request uint64, v Version) error {
	b.begin(now)
	defer b.end()
	q := b.local[request]
	if q == nil || q.state != granted && q.state != lost {
		return &Error{Code: ErrInvalid, Op: "release", Owner: b.cfg.ID, Detail: "it is not held: released before, or never granted"}
	}
	was := q.state
	q.to(released)
	delete(b.local, request)
	if was == lost {
		b.found(q.res)
		return &Error{
			Code: ErrStale, Op: "release", Owner: b.cfg.ID, Resource: q.res,
			Detail: "the credit was taken while it was held: what was done under it may have been refused",
		}
	}
	a := b.accounts[q.res]
	a.version = later(a.version, v)
	if i := slices.IndexFunc(a.holdings, func(h *holding) bool { return h.req == q }); i >= 0 {
		a.remove(a.holdings[i])
	}
	b.settle(a)
	return nil
}

// Cancel gives up a request that waits; [Failed] follows. It does nothing to one
// that does not wait any more.
func (b *Book) Cancel(now time.Duration, request uint64) {
	b.begin(now)
	if q := b.local[request]; q != nil && q.state == waiting {
		a := b.accounts[q.res]
		b.fail(a, q, ErrCanceled)
		b.settle(a)
	}
	b.end()
}

// GiveBack gives what is cached of c back to the creditor before it asks. What
// is held or lent stays. The root keeps everything.
func (b *Book) GiveBack(now time.Duration, r Resource, c Credit) {
	b.begin(now)
	if a := b.accounts[r]; a != nil && b.up != nil && r.Type != nil && r.Type.valid(c) {
		if free := a.free().Meet(c); !free.Empty() {
			from := len(b.messages)
			b.giveBack(a, free)
			for i := range b.messages[from:] {
				b.messages[from+i].Unasked = true
			}
			b.settle(a)
		}
	}
	b.end()
}

// Close winds the owner up: it grants nothing more, calls back what it lent,
// waits for what is held, and gives everything back. [Closed] follows.
func (b *Book) Close(now time.Duration) {
	b.begin(now)
	if !b.closing {
		b.closing = true
		for _, a := range b.all() {
			for len(a.queue) > 0 {
				b.fail(a, a.queue[0], ErrClosed)
			}
			b.settle(a)
		}
	}
	b.end()
}

// begin is the start of each step.
func (b *Book) begin(now time.Duration) {
	b.now = max(b.now, now)
	if b.next != 0 && b.now >= b.next {
		b.expire()
	}
}

// end is the end of each step.
func (b *Book) end() {
	if b.closing && !b.closed {
		b.finish()
	}
	if b.dirty {
		b.schedule()
	}
}

// finish ends the wind-up if there is nothing left to wait for.
func (b *Book) finish() {
	if len(b.accounts) > 0 {
		return
	}
	if b.up != nil && b.up.state == attached {
		if !b.up.bye {
			b.up.bye = true
			b.sendUp(Message{Kind: Bye})
		}
		if len(b.up.link.unacked) > 0 {
			return
		}
	}
	for _, d := range slices.Clone(b.debtors) {
		b.drop(d)
		b.tellDown(d, Message{Kind: Gone})
	}
	b.closed = true
	b.events = append(b.events, Event{Kind: Closed, Owner: b.cfg.ID})
}

// expire does what is due at b.now.
func (b *Book) expire() {
	b.dirty = true
	if b.up != nil {
		b.expireUp()
	}
	for _, d := range slices.Clone(b.debtors) {
		if d.expires != 0 && b.now >= d.expires {
			b.expel(d)
			continue
		}
		d.link.resend(b.now, b.cfg.Retry, b.post)
		if d.link.isDue(b.now) {
			b.tellDown(d, Message{Kind: Ack})
		}
	}
	for _, a := range slices.Clone(b.active) {
		for _, q := range slices.Clone(a.queue) {
			if q.deadline != 0 && b.now >= q.deadline {
				b.fail(a, q, ErrTimeout)
			}
		}
		b.settle(a)
	}
}

// schedule computes when Tick is due.
func (b *Book) schedule() {
	b.dirty, b.next = false, 0
	at := func(t time.Duration) {
		if t != 0 && (b.next == 0 || t < b.next) {
			b.next = t
		}
	}
	if b.closed {
		return
	}
	if b.now < b.grace {
		at(b.grace)
	}
	if b.up != nil {
		b.up.schedule(at)
	}
	for _, d := range b.debtors {
		at(d.expires)
		d.link.schedule(at)
	}
	b.active = slices.DeleteFunc(b.active, func(a *account) bool {
		a.active = a.awaits()
		return !a.active
	})
	for _, a := range b.active {
		for _, q := range a.queue {
			at(q.deadline)
		}
		for _, h := range a.holdings {
			for _, r := range h.recalls {
				if r.due > b.now {
					at(r.due)
				}
			}
		}
	}
}

// post leaves a message to be sent.
func (b *Book) post(m Message) { b.messages = append(b.messages, m) }

// all returns the accounts by age.
func (b *Book) all() []*account { return byAge(b.accounts) }

// byAge returns accounts by age.
func byAge(accounts map[Resource]*account) []*account {
	list := make([]*account, 0, len(accounts))
	for _, a := range accounts { // order does not matter: sorted next
		list = append(list, a)
	}
	slices.SortFunc(list, func(x, y *account) int { return int(x.serial) - int(y.serial) })
	return list
}

func (b *Book) valid(q *request) bool {
	t := q.res.Type
	switch {
	case t == nil:
		return false
	case t.divisible:
		return q.want.Empty() && q.least > 0 && q.least <= q.amount && q.amount <= t.limit
	}
	return q.amount == 0 && !q.want.Empty() && len(q.want) <= b.cfg.MaxRequests && t.valid(q.want)
}
