package credit

import (
	"slices"
	"time"
)

// Loan is what somebody has of a resource, or waits for.
type Loan struct {
	Debtor OwnerID // 0: a user of this owner
	Group  uint64
	Number uint64 // of the request that a user holds, or that waits; a debtor's loan has none
	Credit Credit // of a divisible type that is waited for: none
	Token  Token  // of the last grant of it
	Waits  bool
	// Recalled says that somebody wants it back; Left is then how long the holder
	// has to give it, or some of it, before it is taken; 0: as long as it takes.
	Recalled bool
	Left     time.Duration
}

// Loans returns who has what of a resource, in the order they came, and then who
// waits, in the order of their turns. What the owner itself has is not listed.
func (o *Owner) Loans(r Resource) []Loan {
	o.mu.Lock()
	defer o.mu.Unlock()
	a := o.book.accounts[r]
	if a == nil {
		return nil
	}
	now := o.opt.Now()
	list := make([]Loan, 0, len(a.holdings)+len(a.queue))
	for _, h := range a.holdings {
		l := Loan{Credit: h.credit, Token: h.token, Recalled: len(h.recalls) > 0 || !h.tried.Empty()}
		if h.debtor != nil {
			l.Debtor, l.Group = h.debtor.id, h.debtor.group
		} else {
			l.Number, l.Group = h.req.id, h.req.group
		}
		for _, r := range h.recalls {
			if left := max(r.due-now, 1); r.due != 0 && (l.Left == 0 || left < l.Left) {
				l.Left = left
			}
		}
		list = append(list, l)
	}
	for _, q := range a.queue {
		l := Loan{Number: q.id, Group: q.group, Credit: q.want, Waits: true}
		if q.debtor != nil {
			l.Debtor = q.debtor.id
		}
		list = append(list, l)
	}
	return list
}

// Lent says whether a debtor has something of a resource or waits for it.
func (o *Owner) Lent(r Resource) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	a := o.book.accounts[r]
	return a != nil && (slices.ContainsFunc(a.holdings, func(h *holding) bool { return h.debtor != nil }) ||
		slices.ContainsFunc(a.queue, func(q *request) bool { return q.debtor != nil }))
}

// Resources returns, in no order, of what somebody has something or waits for it.
func (o *Owner) Resources() []Resource {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]Resource, 0, len(o.book.accounts))
	for r := range o.book.accounts { // order does not matter: as it says
		list = append(list, r)
	}
	return list
}

// Debts returns, in no order, of what a debtor has something, and what it waits for.
func (o *Owner) Debts(id OwnerID) (has, waits []Resource) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d := o.book.byID[id]
	if d == nil {
		return nil, nil
	}
	has, waits = make([]Resource, 0, len(d.loans)), make([]Resource, 0, len(d.requests))
	for r := range d.loans { // order does not matter: as it says
		has = append(has, r)
	}
	for _, q := range d.requests { // the same
		waits = append(waits, q.res)
	}
	return has, waits
}

// Footprint is how much an owner keeps of a debtor.
type Footprint struct {
	Loans    int // resources of which it has something
	Requests int // that wait
	Spans    int // of these
	Messages int // that were sent to it and are not acknowledged
}

// Footprint returns how much is kept of a debtor.
func (o *Owner) Footprint(id OwnerID) Footprint {
	o.mu.Lock()
	defer o.mu.Unlock()
	d := o.book.byID[id]
	if d == nil {
		return Footprint{}
	}
	return Footprint{len(d.loans), len(d.requests), d.spans, len(d.link.unacked)}
}
