package credit

import (
	"slices"
	"time"
)

// passed is a Raise that was passed on.
type passed struct {
	id     uint64
	debtor *debtor
	theirs uint64
	left   *int // parts of it that are not answered
}

// obey does what the creditor says.
func (b *Book) obey(m Message) {
	if m.Kind == Renewed {
		b.extend(m.Sent, m.Within)
		return
	}
	t := m.Resource.Type
	if t == nil || !t.valid(m.Credit) {
		return
	}
	if m.Kind == Grant {
		a := b.account(m.Resource)
		a.borrowed = a.borrowed.Join(m.Credit)
		a.recalls, a.tried, a.owed = without(a.recalls, m.Credit), a.tried.Diff(m.Credit), 0
		if a.token.Compare(m.Token) < 0 {
			a.token = m.Token
		}
		a.version = later(a.version, m.Version)
		b.answered(a, m.Request)
		b.settle(a)
		return
	}
	a := b.accounts[m.Resource]
	if a == nil {
		if m.Kind == Recall && m.Flags&Try != 0 && m.Amount > 0 {
			b.sendUp(Message{Kind: Kept, Resource: m.Resource})
		}
		if m.Kind == Raised {
			b.raised(nil, m)
		}
		return
	}
	switch m.Kind {
	case Refuse:
		if q := b.answered(a, m.Request); q != nil && m.Code != ErrCanceled {
			b.refuse(a, q, m.Code, m.Limit)
		}
	case Recall:
		b.recalled(a, m)
	case Taken:
		b.forfeit(a, m.Credit)
	case Raised:
		b.raised(a, m)
	case Waive:
		b.waived(a, m)
	case Hello, Welcome, Renew, Renewed, Gone, Ack, Borrow, Withdraw, Grant, Kept, Return, Raise, Bye:
	}
	b.settle(a)
}

// answered ends a Borrow and returns the request that it was for, if that waits
// still.
func (b *Book) answered(a *account, id uint64) *request {
	for _, q := range a.queue {
		if q.asked == id {
			q.asked = 0
			return q
		}
	}
	return nil
}

// borrow asks the creditor for all that q wants, unless it is asked by another
// request for as much.
func (b *Book) borrow(a *account, q *request, amount, least uint64) {
	code := Code(0)
	switch {
	case b.up == nil:
		code = ErrNotFound
	case q.flags&MayBorrow == 0:
		code = ErrRemote
	case b.up.state == down:
		code = ErrNoCreditor
	}
	if code != 0 {
		b.fail(a, q, code)
		return
	}
	q.to(waiting)
	if q.asked != 0 || b.up.state != attached {
		return
	}
	for _, p := range a.queue {
		if p.asked != 0 && p.flags == q.flags && amount == 0 && p.want.Has(q.want) {
			return
		}
	}
	if len(b.up.link.unacked) >= unheardMost*b.cfg.MaxUnacked {
		b.fail(a, q, ErrLimit) // somebody asks and gives up, again and again, and it does not hear
		return
	}
	b.serial++
	q.asked = b.serial
	b.sendUp(Message{
		Kind: Borrow, Resource: a.res, Request: q.asked, Credit: q.want, Amount: amount, Least: least, Flags: q.flags,
	})
}

// forget removes k from what was borrowed.
func (b *Book) forget(a *account, k Credit) {
	a.borrowed = a.borrowed.Diff(k)
	a.recalls, a.tried = without(a.recalls, k), a.tried.Diff(k)
	a.tainted = a.tainted.Diff(k)
	for i := range a.raises {
		a.raises[i].credit = a.raises[i].credit.Diff(k)
	}
}

// forfeit enters that the creditor has taken k: nobody below has it any more.
func (b *Book) forfeit(a *account, k Credit) {
	k = k.Meet(a.borrowed)
	for _, h := range slices.Clone(a.holdings) {
		gone := h.credit.Meet(k)
		if gone.Empty() {
			continue
		}
		if h.debtor == nil {
			gone = h.credit // a user's hold is one: the rest of it is taken here
			a.taint(gone.Diff(k), b.cfg.MaxSpans)
		}
		h.lose(gone)
		b.cut(a, h, gone)
	}
	b.forget(a, k)
}

// raised enters that old tokens are refused from now on.
func (b *Book) raised(a *account, m Message) {
	for i, p := range b.up.passed {
		if p.id == m.Request {
			b.up.passed = slices.Delete(b.up.passed, i, i+1)
			if *p.left--; *p.left > 0 {
				return
			}
			b.sendDown(p.debtor, Message{Kind: Raised, Resource: m.Resource, Request: p.theirs, Version: m.Version})
			return
		}
	}
	if a == nil {
		return
	}
	a.version = later(a.version, m.Version)
	for i, r := range a.raises {
		if r.id == m.Request {
			a.raises = slices.Delete(a.raises, i, i+1)
			a.tainted = a.tainted.Diff(r.credit)
			return
		}
	}
}

// Receive takes a message. It may be anything: what does not fit is dropped.
func (b *Book) Receive(now time.Duration, m Message) {
	b.begin(now)
	switch {
	case m.To != b.cfg.ID:
	case b.up != nil && m.From == b.up.id:
		if !b.closed {
			b.fromCreditor(m)
		}
	default:
		b.fromDebtor(m)
	}
	b.end()
}
