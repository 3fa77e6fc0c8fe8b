package credit

import (
	"slices"
	"time"
)

// debtor is somebody to whom this owner lends, in one session.
type debtor struct {
	id       OwnerID
	session  uint64
	key      uint64 // of this session: a Hello that comes late begins another
	group    uint64
	expires  time.Duration // 0: when it ends
	link     link
	waives   bool                // there are call-backs to be withdrawn once it has heard of them
	seen     uint64              // the greatest Seen that was taken: what was granted up to it, it had
	requests map[uint64]*request // waiting, by its own numbers
	loans    map[Resource]*holding
	spans    int // of what it has and waits for
	raised   int // of floors that it asked for
}

// DebtorDown says that a debtor is gone: its process has ended, nothing of it
// comes any more. What it had is free.
func (b *Book) DebtorDown(now time.Duration, id OwnerID) {
	b.begin(now)
	b.bury(id)
	if d := b.byID[id]; d != nil {
		b.drop(d)
	}
	b.end()
}

// sendDown numbers a message to a debtor and returns its number.
func (b *Book) sendDown(d *debtor, m Message) uint64 {
	m.From, m.To, m.Session, m.Key = b.cfg.ID, d.id, d.session, d.key
	return b.sendOver(&d.link, m)
}

// sendOver numbers a message, in parts if its credit has too many spans for one,
// and returns the number of the last. A Raise is never parted: it is answered.
func (b *Book) sendOver(l *link, m Message) uint64 {
	for most := b.cfg.MaxRequests; len(m.Credit) > most && m.Kind != Raise; {
		part := m
		part.Credit, part.Request, part.Amount = m.Credit[:most:most], 0, 0
		m.Credit = m.Credit[most:]
		if l.number(&part, b.now, b.cfg.Retry) {
			b.post(part)
		}
	}
	if l.number(&m, b.now, b.cfg.Retry) {
		b.post(m)
	}
	b.dirty = true
	return m.Seq
}

// tellDown sends a message without a number.
func (b *Book) tellDown(d *debtor, m Message) {
	m.From, m.To, m.Session, m.Key, m.Ack = b.cfg.ID, d.id, d.session, d.key, d.link.taken
	d.link.paid()
	b.post(m)
}

// fromDebtor handles what comes from below.
func (b *Book) fromDebtor(m Message) {
	d := b.byID[m.From]
	if m.Kind == Hello {
		b.greet(d, m)
		return
	}
	if d == nil || d.session != m.Session || d.key != m.Key {
		if d == nil || d.session <= m.Session {
			b.post(Message{Kind: Gone, From: b.cfg.ID, To: m.From, Session: m.Session, Key: m.Key})
		}
		return
	}
	b.dirty = true
	heard := d.link.acked()
	mine := d.link.take(&m, b.cfg.MaxUnacked)
	d.link.progress(heard, b.now, b.cfg.Retry, b.post)
	if d.waives && d.link.acked() > heard {
		b.withdraw(d)
	}
	if mine {
		m.Seen = min(m.Seen, d.link.acked()) // who has seen more says so
		d.seen = max(d.seen, m.Seen)
		b.handle(d, m)
	}
	if b.byID[m.From] == d && d.link.owe(&m, mine, b.now, b.cfg.Ack) {
		b.tellDown(d, Message{Kind: Ack})
	}
}

// handle does what a debtor says. What does not fit is left alone: the debtor
// broke the protocol and has only itself to harm.
func (b *Book) handle(d *debtor, m Message) {
	if m.Kind == Renew {
		if within, ok := b.lease(); ok {
			b.renew(d, within)
			b.tellDown(d, Message{Kind: Renewed, Sent: m.Sent, Within: within})
		}
		return
	}
	if m.Kind == Bye {
		b.drop(d)
		b.tellDown(d, Message{Kind: Gone})
		return
	}
	if m.Resource.Type == nil || !m.Resource.Type.valid(m.Credit) {
		return
	}
	if m.Kind == Borrow {
		b.lend(d, m)
		return
	}
	a := b.accounts[m.Resource]
	if m.Kind == Raise {
		b.raise(d, a, m)
		return
	}
	if a == nil {
		return
	}
	switch m.Kind {
	case Withdraw:
		if q := d.requests[m.Request]; q != nil && q.res == m.Resource {
			b.fail(a, q, ErrCanceled)
			b.settle(a)
		}
	case Return:
		b.takeBack(d, a, m)
	case Kept:
		b.kept(d, a, m)
	case Hello, Welcome, Renew, Renewed, Gone, Ack, Borrow, Grant, Refuse, Recall, Taken, Raise, Raised, Bye, Waive:
	}
}

// greet begins a session, or repeats that it has begun. Who begins a new one has
// dropped what it had in the one before.
func (b *Book) greet(d *debtor, m Message) {
	within, ok := b.lease()
	if !ok || b.closing || b.level >= Depth-1 || d != nil && m.Session < d.session || m.From == 0 || m.Session == 0 {
		return
	}
	b.dirty = true
	if d != nil && m.Session > d.session {
		b.expel(d)
		d = nil
	}
	if d == nil {
		b.serial++
		d = &debtor{
			id: m.From, session: m.Session, key: b.serial, group: m.Group,
			requests: map[uint64]*request{}, loans: map[Resource]*holding{},
		}
		b.byID[d.id] = d
		b.debtors = append(b.debtors, d)
	}
	b.renew(d, within)
	b.tellDown(d, Message{Kind: Welcome, Sent: m.Sent, Within: within, Level: b.level})
}

// lease returns how long a debtor may have what it has from now on; 0: without
// end. Who has a lease itself gives none beyond its own, and none at all without
// a session.
func (b *Book) lease() (within time.Duration, ok bool) {
	if b.up == nil {
		return b.cfg.Lease, true
	}
	if b.up.state != attached {
		return 0, false
	}
	if b.up.ends == 0 {
		return b.cfg.Lease, true
	}
	left := b.up.ends - b.now
	if left <= 0 {
		return 0, false
	}
	if b.cfg.Lease > 0 {
		left = min(left, b.cfg.Lease)
	}
	return left, true
}

// renew notes a lease that is being given.
func (b *Book) renew(d *debtor, within time.Duration) {
	if within > 0 {
		d.expires = max(d.expires, b.now+within)
	}
}

// lend enters a debtor's request.
func (b *Book) lend(d *debtor, m Message) {
	q := &request{
		debtor: d, theirs: m.Request, res: m.Resource, want: m.Credit, amount: m.Amount, least: m.Least,
		flags: m.Flags, group: d.group,
	}
	code, limit := Code(0), (*Limit)(nil)
	switch {
	case m.Code != 0:
		code, limit = m.Code, m.Limit
	case d.requests[m.Request] != nil || !b.valid(q):
		code = ErrInvalid
	case b.closing:
		code = ErrClosed
	case len(d.requests) >= b.cfg.MaxRequests, d.spans+q.spans() > b.cfg.MaxSpans, b.losers[d.id].full(b.cfg.MaxSpans):
		code = ErrLimit
	}
	if code != 0 {
		b.sendDown(d, Message{Kind: Refuse, Resource: m.Resource, Request: m.Request, Code: code, Limit: limit})
		return
	}
	b.serial++
	q.id = b.serial
	d.requests[m.Request] = q
	d.spans += q.spans()
	b.enter(q)
}

// takeBack enters what a debtor gives back. What it was granted again after it
// sent this, it has.
func (b *Book) takeBack(d *debtor, a *account, m Message) {
	h := d.loans[a.res]
	if h == nil {
		return
	}
	h.sent = slices.DeleteFunc(h.sent, func(s sent) bool { return s.seq <= m.Seen })
	back, before := m.Credit.Meet(h.credit), len(h.credit)
	for _, s := range h.sent {
		back = back.Diff(s.credit)
	}
	h.lose(back)
	h.asked -= min(h.asked, m.Credit.Size())
	a.version = later(a.version, m.Version)
	if h.credit.Empty() {
		a.remove(h)
	}
	pieces := len(h.credit)
	b.settle(a)
	if pieces > before {
		b.press(d, a)
	}
}

// kept enters that a debtor holds what it was to give back if it did not; of an
// amount, that it has given back what it could. It speaks of what it has only.
func (b *Book) kept(d *debtor, a *account, m Message) {
	h := d.loans[a.res]
	if h == nil {
		return
	}
	k := m.Credit.Meet(h.credit)
	h.tried = h.tried.Diff(k)
	h.trying = 0
	for _, q := range slices.Clone(a.queue) {
		if q.flags&Try != 0 && a.res.Type.Conflict(q.want, k) && !b.exempt(h, q) {
			b.fail(a, q, ErrBusy)
		}
	}
	if tried := a.tried.Meet(k); !tried.Empty() {
		b.keep(a, tried)
	}
	b.settle(a)
}

// raise has tokens refused that a debtor took from its own. What others here
// have, too, is this owner's to disarm, before anybody gets what conflicts with
// it, the debtor included; for the rest the root is asked.
func (b *Book) raise(d *debtor, a *account, m Message) {
	var c Credit
	if a != nil && d.loans[a.res] != nil {
		c = m.Credit.Meet(d.loans[a.res].credit)
		if d.raised += len(c); d.raised > 4*b.cfg.MaxSpans {
			b.evict(d) // that makes one floor of all
			return
		}
		b.loses(d, a.res)
		others := Credit(nil)
		for _, h := range a.holdings {
			if h.debtor != d {
				others = others.Join(h.credit)
			}
		}
		a.taint(c.Meet(others), b.cfg.MaxSpans)
		c = c.Diff(others)
		defer b.settle(a)
	}
	if b.up == nil || c.Empty() {
		r := Message{Kind: Raised, Resource: m.Resource, Request: m.Request}
		if !c.Empty() {
			b.events = append(b.events, Event{Kind: Fence, Resource: m.Resource, Credit: c, Token: m.Token})
			r.Version = b.newest(a)
		}
		b.sendDown(d, r)
		return
	}
	if !b.up.lasts() {
		return // all is lost: the debtor will hear of it
	}
	left := 0
	for part := range slices.Chunk(c, b.cfg.MaxRequests) {
		left++
		b.serial++
		b.up.passed = append(b.up.passed, passed{b.serial, d, m.Request, &left})
		b.sendUp(Message{Kind: Raise, Resource: m.Resource, Request: b.serial, Credit: part, Token: m.Token})
	}
}

// drop ends a debtor's session. What it had is taken without telling it.
func (b *Book) drop(d *debtor) {
	b.dirty = true
	delete(b.byID, d.id)
	b.debtors = slices.DeleteFunc(b.debtors, func(x *debtor) bool { return x == d })
	if b.up != nil {
		b.up.passed = slices.DeleteFunc(b.up.passed, func(p passed) bool { return p.debtor == d })
	}
	for _, a := range b.knownTo(d) {
		for _, q := range slices.Clone(a.queue) {
			if q.debtor == d {
				q.to(failed)
				a.stale = a.stale || q.called
				a.queue = slices.DeleteFunc(a.queue, func(p *request) bool { return p == q })
				if q.asked != 0 {
					b.sendUp(Message{Kind: Withdraw, Resource: q.res, Request: q.asked})
				}
			}
		}
		if h := d.loans[a.res]; h != nil {
			a.taint(h.credit, b.cfg.MaxSpans)
			a.remove(h)
		}
		b.settle(a)
	}
}
