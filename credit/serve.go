package credit

import (
	"slices"
	"time"
)

// exempt says whether a holder is no obstacle to a request, whatever it holds:
// it is the request's debtor, or one of its group.
func (b *Book) exempt(h *holding, q *request) bool {
	if h.debtor == nil {
		return h.req.kin(q)
	}
	return h.debtor == q.debtor || q.group != 0 && q.group == h.debtor.group
}

// kin says whether two requests are of one group: users of this owner who have not
// named one are not.
func (q *request) kin(p *request) bool {
	return q.group != 0 && q.group == p.group && (q.debtor != nil || p.debtor != nil || q.named && p.named)
}

// behind says whether q waits for p, which came before it. All that wait for
// amounts go by turn.
func (q *request) behind(p *request) bool {
	if q.res.Type.divisible {
		return true
	}
	if p.debtor != nil && p.debtor == q.debtor || q.kin(p) {
		return false
	}
	return q.res.Type.Conflict(p.want, q.want)
}

// serve goes through the queue by order of arrival. A request that conflicts with
// one before it waits, even if nobody holds anything: so no stream of later ones
// keeps it waiting for ever. What is taken for one may be more than it wants, and
// be what an earlier one waits for: then all are looked at again.
func (b *Book) serve(a *account) {
	if b.now < b.grace {
		return
	}
	for a.took = true; a.took; {
		a.took = false
		b.serveOnce(a)
	}
}

func (b *Book) serveOnce(a *account) {
	var ahead Credit // of those that wait
	for i := 0; i < len(a.queue); {
		q := a.queue[i]
		blocked := i > 0 && (a.res.Type.divisible || a.res.Type.Conflict(ahead, q.want)) &&
			slices.ContainsFunc(a.queue[:i], q.behind) && !b.covered(a, q)
		switch {
		case !blocked:
			q.to(check)
			b.attempt(a, q)
		case q.flags&Try != 0:
			b.fail(a, q, ErrBusy)
		}
		if i < len(a.queue) && a.queue[i] == q {
			ahead = ahead.Join(q.want)
			i++
		}
	}
}

// covered says whether q, of a user of this owner, is for no more than debtors of its
// group have. They have it until they give it back, whoever waits for it; that it is held
// here, too, keeps nobody waiting for longer: see inherit.
func (b *Book) covered(a *account, q *request) bool {
	if q.debtor != nil || !q.named || a.res.Type.divisible {
		return false
	}
	rest := q.want
	for _, h := range a.holdings {
		if h.debtor != nil && h.debtor.group == q.group {
			rest = rest.Diff(h.credit)
		}
	}
	return rest.Empty()
}

// inherit has what was called back of a user's group called back of what the user was
// granted just now, with the same deadlines: else one after the other could be granted
// for ever what others wait for.
func (b *Book) inherit(a *account, h *holding) {
	if !h.req.named {
		return
	}
	rest := h.credit
	for _, x := range a.holdings {
		if x.debtor == nil || x.debtor.group != h.req.group {
			continue
		}
		for _, r := range x.recalls {
			if k := r.credit.Meet(rest); !k.Empty() {
				rest = rest.Diff(k)
				h.recalls = append(h.recalls, recall{k, r.due})
			}
		}
	}
	if len(h.recalls) > 0 {
		h.called = true
		b.events = append(b.events, Event{Kind: CalledBack, Request: h.req.id, Resource: a.res, Credit: h.credit})
	}
}

// attempt grants q, or fails it, or does what it waits for: first those below
// let go, and those who did not in time are fenced; then the creditor is asked,
// for all that q wants, so that its place in the creditor's queue is for all of
// it. Nothing is held meanwhile.
func (b *Book) attempt(a *account, q *request) {
	if a.res.Type.divisible {
		b.attemptAmount(a, q)
		return
	}
	over, code := b.clear(a, q)
	if code != 0 {
		b.fail(a, q, code)
		return
	}
	missing := q.want.Diff(a.borrowed).Join(q.want.Meet(a.leaving()))
	switch {
	case !over:
		q.to(waiting)
	case missing.Empty():
		b.grant(a, q)
	default:
		b.borrow(a, q, 0, 0)
	}
}

// clear calls back what conflicts with q below. It returns whether nothing does
// any more, or why q cannot have it.
func (b *Book) clear(a *account, q *request) (over bool, code Code) {
	t := a.res.Type
	var late []*holding
	obstacle := func(h *holding) bool { return t.Conflict(h.credit, q.want) && !b.exempt(h, q) }
	if h := q.blocker; h != nil && obstacle(h) && (h.keeps(t) || !h.overdue(t.Against(h.credit, q.want), b.now)) {
		return false, 0
	}
	q.blocker = nil
	for _, h := range a.holdings {
		switch {
		case h.debtor != nil && q.flags&MayRevoke == 0 && obstacle(h):
			return false, ErrRemote
		case h.debtor == nil && q.flags&Try != 0 && obstacle(h):
			return false, ErrBusy
		}
	}
	over = true
	for _, h := range a.holdings {
		if !obstacle(h) {
			continue
		}
		k := t.Against(h.credit, q.want)
		b.callBack(a, h, k, q.flags&Try != 0, b.due())
		if !h.keeps(t) && h.overdue(k, b.now) {
			late = append(late, h)
		} else {
			over, q.blocker, q.called = false, h, true
		}
	}
	if !over {
		return false, 0
	}
	for _, h := range late {
		b.take(a, h, t.Against(h.credit, q.want))
	}
	b.disarm(a, t.Against(a.tainted, q.want))
	return !t.Conflict(a.tainted, q.want), 0
}

// due returns the deadline of a call-back that begins now.
func (b *Book) due() time.Duration {
	if b.cfg.CallBack <= 0 {
		return 0
	}
	return b.now + b.cfg.CallBack
}

// callBack asks a holder for k, if it was not asked before.
func (b *Book) callBack(a *account, h *holding, k Credit, try bool, due time.Duration) {
	if try {
		k = k.Diff(h.tried) // be it called back already: whether it is held is another question
	} else {
		k = k.Diff(h.recalled())
	}
	if k.Empty() {
		return
	}
	b.dirty = true
	if try {
		h.tried = h.tried.Join(k)
	} else {
		h.recalls = append(h.recalls, recall{k, due})
		k, h.idle = k.Diff(h.idle), h.idle.Diff(k)
	}
	switch {
	case h.debtor != nil && k.Empty(): // it was told, and not yet otherwise
	case h.debtor != nil:
		m := Message{Kind: Recall, Resource: a.res, Credit: k}
		if try {
			m.Flags = Try
		} else if due > 0 {
			m.Within = max(due-b.now, 1)
		}
		b.recall(h, m)
		if len(h.debtor.link.unacked) > silentMost {
			m.Credit, m.Within = b.rest(h, try), 0
			b.recall(h, m)
		}
	case !h.called:
		h.called = true
		b.events = append(b.events, Event{Kind: CalledBack, Request: h.req.id, Resource: a.res, Credit: h.credit})
	}
}

// silentMost is how many messages a debtor may leave unacknowledged before it is
// called back all of a holding at once, whatever is wanted of it: so it has few
// call-backs kept for it, however many others want each a piece, one after the
// other.
const silentMost = 64

// recall sends a Recall.
func (b *Book) recall(h *holding, m Message) {
	if m.Credit.Empty() && m.Amount == 0 {
		return
	}
	if seq := b.sendDown(h.debtor, m); m.Flags&Try == 0 {
		h.told = seq
	}
}

// rest enters that all of a holding is called back that was not, and returns it.
// Nobody wants it: it has no deadline.
func (b *Book) rest(h *holding, try bool) Credit {
	if try {
		k := h.credit.Diff(h.tried)
		h.tried = h.tried.Join(k)
		return k
	}
	k := h.credit.Diff(h.recalled()).Diff(h.idle)
	h.idle, h.debtor.waives = h.idle.Join(k), true
	return k
}

// grant gives q what it wants.
func (b *Book) grant(a *account, q *request) {
	q.to(granted)
	b.dirty = true
	a.stale = a.stale || q.called && a.res.Type.divisible // each was called back for all of it
	a.queue = slices.DeleteFunc(a.queue, func(p *request) bool { return p == q })
	if q.asked != 0 {
		b.sendUp(Message{Kind: Withdraw, Resource: q.res, Request: q.asked})
		q.asked = 0
	}
	t := b.token(a)
	if q.debtor == nil {
		h := &holding{req: q, credit: q.want, token: t}
		a.holdings = append(a.holdings, h)
		b.events = append(b.events, Event{
			Kind: Granted, Request: q.id, Resource: a.res, Credit: q.want, Token: t, Version: b.newest(a),
		})
		b.inherit(a, h)
		return
	}
	d := q.debtor
	d.forget(q)
	h := d.loans[a.res]
	if h == nil {
		h = &holding{debtor: d}
		h.sent = h.room[:0]
		d.loans[a.res] = h
		a.holdings = append(a.holdings, h)
	}
	h.lose(q.want) // what was called back of it is not any more
	h.asked = 0
	h.credit, h.token = h.credit.Join(q.want), t
	h.sent = slices.DeleteFunc(h.sent, func(s sent) bool { return s.seq <= d.seen })
	for c := q.want; !c.Empty(); { // of an amount it may be too many spans for one message
		part := c[:min(len(c), b.cfg.MaxRequests)]
		c = c[len(part):]
		m := Message{Kind: Grant, Resource: a.res, Credit: part, Token: t, Version: b.newest(a)}
		if c.Empty() {
			m.Request = q.theirs
		}
		h.sent = append(h.sent, sent{b.sendDown(d, m), part})
	}
	h.count()
}

// attemptAmount is attempt for a divisible type. The creditor is asked for the
// whole amount, even if some of it is here: that may be called back while the
// rest is on its way, and so on for ever.
func (b *Book) attemptAmount(a *account, q *request) {
	free := a.free()
	if n := free.Size(); n >= q.least {
		q.want = free.head(min(n, q.amount))
		b.grant(a, q)
		return
	} else if b.up == nil && a.borrowed.Size() < q.least {
		b.fail(a, q, ErrNotFound)
		return
	}
	pending, users := b.callBackAmount(a, q, q.least-min(q.least, free.Size()))
	switch {
	case b.up != nil && q.flags&MayBorrow != 0:
		chunk := a.res.Type.chunk
		b.borrow(a, q, min((q.amount+chunk-1)/chunk*chunk, a.res.Type.limit), q.least)
	case pending:
		q.to(waiting)
	case b.up != nil && a.borrowed.Size() < q.least, q.flags&MayRevoke == 0 && free.Size()+users < q.least:
		b.fail(a, q, ErrRemote)
	case q.flags&Try != 0:
		b.fail(a, q, ErrBusy)
	default:
		q.to(waiting)
	}
}

// callBackAmount asks each debtor for so much of what it does not use: how much
// that is, nobody else knows. It returns whether any of them is yet to answer,
// and how much users of this owner hold.
func (b *Book) callBackAmount(a *account, q *request, amount uint64) (pending bool, users uint64) {
	try := q.flags&Try != 0
	ask := q.flags&MayRevoke != 0 && (!try || !q.tried)
	q.tried, q.called = true, q.called || ask
	for _, h := range a.holdings {
		if h.debtor == nil {
			users += h.credit.Size()
			continue
		}
		n := min(h.credit.Size(), amount)
		switch {
		case !ask:
		case try:
			h.trying += n
			b.sendDown(h.debtor, Message{Kind: Recall, Resource: a.res, Amount: n, Flags: Try})
		case n > h.asked:
			if len(h.debtor.link.unacked) > silentMost {
				n = h.credit.Size()
			}
			b.recall(h, Message{Kind: Recall, Resource: a.res, Amount: n - h.asked})
			h.asked = n
		}
		pending = pending || try && h.trying > 0 || !try && h.asked > 0
	}
	return pending, users
}
