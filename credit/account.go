package credit

import (
	"slices"
	"time"
)

// state is a request's. It goes from fresh to check, from there to waiting and
// back as often as it takes, and ends as granted and then released or lost, or
// failed.
type state uint8

const (
	fresh state = iota
	check
	waiting
	granted
	lost
	released
	failed
)

// after lists the states that may follow each.
var after = [...][]state{
	fresh: {check, failed}, check: {waiting, granted, failed}, waiting: {check, failed},
	granted: {released, lost}, lost: {released}, released: nil, failed: nil,
}

// request is one that a user of this owner or a debtor has made.
type request struct {
	id       uint64
	res      Resource
	state    state
	debtor   *debtor // nil: a user of this owner
	theirs   uint64  // the debtor's number for it
	want     Credit
	amount   uint64 // divisible: this much
	least    uint64 // divisible: or at least that
	flags    Flags
	group    uint64
	named    bool // a user of this owner has named the group
	keep     bool // what it is granted is not taken
	deadline time.Duration
	asked    uint64 // the Borrow that is under way for it, or 0
	tried    bool   // divisible: debtors were asked for what they do not use
	called   bool   // others were called back for it
	// blocker is the last of those who have what conflicts, all of whom were
	// called back: while it has it, the others need not be looked at. Nobody gets
	// what conflicts meanwhile, who would have to be called back, too.
	blocker *holding
}

// to changes the state.
func (q *request) to(s state) {
	if !slices.Contains(after[q.state], s) {
		panic("credit: a request goes where it cannot from its state")
	}
	q.state = s
}

// recall is part of a holding that was called back.
type recall struct {
	credit Credit
	due    time.Duration // when it may be taken; 0: never
}

// holding is what one holder has of a resource: a debtor what it was lent, a
// user of this owner what one granted request holds.
type holding struct {
	debtor  *debtor  // or
	req     *request // of a user of this owner
	credit  Credit
	token   Token // of the last grant
	recalls []recall
	idle    Credit // called back of a debtor, wanted no more, and that not yet said
	tried   Credit // called back unless it is held
	told    uint64 // number of the last message that called back
	asked   uint64 // divisible: called back and not yet returned
	trying  uint64 // divisible: called back unless it is used, and not yet answered
	sent    []sent // grants that the debtor may not have had when it sent what comes next
	called  bool   // the user was told
	spans   int    // of credit and sent, as counted for the debtor

	room [1]sent // of sent: mostly that is enough
}

// sent is a grant and the number of its message.
type sent struct {
	seq    uint64
	credit Credit
}

// recalled returns what was called back.
func (h *holding) recalled() Credit {
	var c Credit
	for _, r := range h.recalls {
		c = c.Join(r.credit)
	}
	return c
}

// overdue says whether all of k was called back and should have come by now.
func (h *holding) overdue(k Credit, now time.Duration) bool {
	for _, r := range h.recalls {
		if r.due != 0 && now >= r.due {
			k = k.Diff(r.credit)
		}
	}
	return k.Empty()
}

// keeps says whether it is not taken however long it is held.
func (h *holding) keeps(t *Type) bool { return t.keep || h.debtor == nil && h.req.keep }

// lose removes k from the holding.
func (h *holding) lose(k Credit) {
	h.credit = h.credit.Diff(k)
	h.tried, h.idle = h.tried.Diff(k), h.idle.Diff(k)
	h.recalls = without(h.recalls, k)
	h.count()
}

// without removes k from recalls.
func without(list []recall, k Credit) []recall {
	var kept []recall
	for _, r := range list {
		if r.credit = r.credit.Diff(k); !r.credit.Empty() {
			kept = append(kept, r)
		}
	}
	return kept
}

// raise is tokens that the root was asked to refuse.
type raise struct {
	id     uint64
	credit Credit
}

// account is what an owner knows of one resource. Its own is borrowed without
// what its holders have; of that nothing needs to be said to anybody: it is
// cached.
type account struct {
	res      Resource
	serial   uint64
	borrowed Credit // the root: what there is
	token    Token  // of the last grant, its words up to the creditor's
	version  Version
	holdings []*holding
	queue    []*request // waiting, by arrival
	recalls  []recall   // called back by the creditor
	tried    Credit     // the same, unless it is held
	owed     uint64     // divisible: called back by the creditor
	tainted  Credit     // taken from a holder, whose token is still good
	raises   []raise    // what of it the root was asked to refuse
	stale    bool       // somebody for whom others were called back does not want it any more
	took     bool       // something was taken for a request
	active   bool

	// Of holdings and queue: mostly that is enough.
	holdingRoom [1]*holding
	queueRoom   [1]*request
}

// awaits says whether something is to happen to the account.
func (a *account) awaits() bool {
	if len(a.queue) > 0 || len(a.recalls) > 0 || !a.tried.Empty() || a.owed > 0 || !a.tainted.Empty() {
		return true
	}
	return slices.ContainsFunc(a.holdings, func(h *holding) bool { return len(h.recalls) > 0 })
}

// unheld returns what of c no holder has.
func (a *account) unheld(c Credit) Credit {
	for _, h := range a.holdings {
		if c.Empty() {
			break
		}
		c = c.Diff(h.credit)
	}
	return c
}

// leaving returns what the creditor wants back.
func (a *account) leaving() Credit {
	c := a.tried
	for _, r := range a.recalls {
		c = c.Join(r.credit)
	}
	return c
}

// free returns what is cached: nobody has it, and nobody wants it back.
func (a *account) free() Credit {
	return a.unheld(a.borrowed).Diff(a.leaving()).Diff(a.tainted)
}

// account returns the account of r; a new one if there is none.
func (b *Book) account(r Resource) *account {
	if a := b.accounts[r]; a != nil {
		return a
	}
	b.serial++
	a := &account{res: r, serial: b.serial}
	a.holdings, a.queue = a.holdingRoom[:0], a.queueRoom[:0]
	switch {
	case b.up != nil:
	case b.cfg.Capital != nil:
		a.borrowed = b.cfg.Capital(r)
	default:
		a.borrowed = r.Type.All()
	}
	b.accounts[r] = a
	return a
}

// enter puts a request at the end of its resource's queue.
func (b *Book) enter(q *request) {
	q.to(check)
	q.to(waiting)
	a := b.account(q.res)
	a.queue = append(a.queue, q)
	b.settle(a)
}

// fail ends a request that is not granted. The account is nil if it was not
// entered.
func (b *Book) fail(a *account, q *request, code Code) { b.refuse(a, q, code, nil) }

// refuse is fail, by a limit if that is known.
func (b *Book) refuse(a *account, q *request, code Code, limit *Limit) {
	q.to(failed)
	if a != nil {
		b.dirty = true
		a.stale = a.stale || q.called
		a.queue = slices.DeleteFunc(a.queue, func(p *request) bool { return p == q })
		if q.asked != 0 {
			b.sendUp(Message{Kind: Withdraw, Resource: q.res, Request: q.asked})
		}
	}
	if q.debtor != nil {
		q.debtor.forget(q)
		b.sendDown(q.debtor, Message{Kind: Refuse, Resource: q.res, Request: q.theirs, Code: code, Limit: limit})
		return
	}
	delete(b.local, q.id)
	b.events = append(b.events, Event{Kind: Failed, Request: q.id, Resource: q.res, Code: code, Limit: limit})
}

// settle does for an account what can be done now, and forgets it if it says
// nothing any more.
func (b *Book) settle(a *account) {
	if b.accounts[a.res] != a {
		return // forgotten in the same step
	}
	b.disarm(a, a.unheld(a.tainted))
	b.yield(a)
	b.serve(a)
	b.waive(a)
	b.disarm(a, a.unheld(a.tainted))
	if len(a.holdings) == 0 && len(a.queue) == 0 && a.tainted.Empty() && (b.up == nil || a.borrowed.Empty()) {
		delete(b.accounts, a.res)
		a.recalls, a.tried, a.owed = nil, nil, 0
		b.dirty = b.dirty || a.active
		return
	}
	if !a.active && a.awaits() {
		a.active = true
		b.active = append(b.active, a)
	}
	b.dirty = b.dirty || a.active
}

// take takes k from a holder by force. Its token is good until the work's place
// has heard of it; until then nobody else may have what conflicts. Nor may the
// holder keep what conflicts with k, such as read where it loses write: what was
// done under k is not known, and so neither is the version of what is there.
func (b *Book) take(a *account, h *holding, k Credit) {
	b.dirty = true
	k = k.Join(a.res.Type.Against(h.credit, k))
	if h.debtor == nil {
		k = h.credit // a user's hold is one
	}
	a.took = true
	h.lose(k)
	a.taint(k, b.cfg.MaxSpans)
	b.cut(a, h, k)
}

// taint notes that k was taken.
func (a *account) taint(k Credit, most int) {
	a.tainted = a.tainted.Join(k)
	if len(a.tainted) > most { // more than was taken does no harm
		a.tainted = a.tainted.hull().Meet(a.borrowed)
		k = a.tainted
	}
	for i := range a.raises {
		a.raises[i].credit = a.raises[i].credit.Diff(k) // what was asked for was not about this time
	}
}

// cut tells a holder that it has lost k, and forgets it if that was all.
func (b *Book) cut(a *account, h *holding, k Credit) {
	b.loses(h.debtor, a.res)
	if h.debtor != nil {
		b.sendDown(h.debtor, Message{Kind: Taken, Resource: a.res, Credit: k})
		b.events = append(b.events, Event{Kind: Fenced, Owner: h.debtor.id, Resource: a.res, Credit: k})
	} else {
		h.req.to(lost)
		b.events = append(b.events, Event{Kind: Lost, Request: h.req.id, Resource: a.res, Credit: k})
	}
	if h.credit.Empty() {
		a.remove(h)
	}
}

// remove forgets a holder, which has nothing any more.
func (a *account) remove(h *holding) {
	h.credit, h.sent = nil, nil
	h.count()
	a.holdings = slices.DeleteFunc(a.holdings, func(x *holding) bool { return x == h })
	if h.debtor != nil {
		delete(h.debtor.loans, a.res)
	}
}

// disarm has the tokens refused of those from whom c, which is tainted, was
// taken: at the root at once, elsewhere it asks for it. What others have, too,
// is disarmed when they have not, or when somebody gets what conflicts with it:
// before that, it would hit their tokens, which may be older. At the root what
// nobody has goes with it, so that floors do not fall to pieces: nobody has a
// token of it.
func (b *Book) disarm(a *account, c Credit) {
	for _, r := range a.raises {
		c = c.Diff(r.credit)
	}
	if c.Empty() || b.up != nil && !b.up.lasts() {
		return
	}
	b.dirty = true
	t := b.token(a)
	if b.up == nil {
		a.tainted = a.tainted.Diff(c)
		wide := c.Join(a.unheld(a.borrowed))
		b.events = append(b.events, Event{Kind: Fence, Resource: a.res, Credit: wide, Token: t})
		if b.unfences() && b.lost[a.res] == 0 {
			b.events = append(b.events, Event{Kind: Unfenced, Resource: a.res})
		}
		return
	}
	for part := range slices.Chunk(c, b.cfg.MaxRequests) {
		b.serial++
		a.raises = append(a.raises, raise{b.serial, part})
		b.sendUp(Message{Kind: Raise, Resource: a.res, Request: b.serial, Credit: part, Token: t})
	}
}

// token returns a new token.
func (b *Book) token(a *account) Token {
	b.issued++
	t := a.token
	t[b.level] = b.issued
	return t
}

// newest returns which contents a's resource has, as far as is known here.
func (b *Book) newest(a *account) Version {
	if b.up == nil && b.cfg.Version != nil {
		return b.cfg.Version(a.res)
	}
	return a.version
}
