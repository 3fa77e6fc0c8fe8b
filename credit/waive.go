package credit

// waive withdraws what was called back for requests that are gone, with the
// deadlines: who holds it keeps it.
//
// A debtor is told once it has acknowledged that it was called back. One that
// does not answer has at most one of each kept for it, however often others want
// what it has and give up.
func (b *Book) waive(a *account) {
	if !a.stale {
		return
	}
	a.stale = false
	var wants, owed Credit
	for _, q := range a.queue {
		if q.called && q.flags&Try == 0 {
			wants = wants.Join(q.want)
		}
	}
	for _, r := range a.recalls {
		owed = owed.Join(r.credit)
	}
	for _, h := range a.holdings {
		if over := h.recalled(); !over.Empty() {
			over = over.Diff(owed).Diff(b.wantedOf(a, h, wants))
			h.recalls = without(h.recalls, over)
			h.idle = h.idle.Join(over)
		}
		if h.debtor != nil {
			b.tellWaived(a, h)
			continue
		}
		if h.idle = nil; h.called && len(h.recalls) == 0 && h.tried.Empty() {
			h.called = false
			b.events = append(b.events, Event{Kind: Waived, Request: h.req.id, Resource: a.res, Credit: h.credit})
		}
	}
}

// wantedOf returns what of a holding those want for whom others were called
// back. All of them want wants; but what a holder has is no obstacle to itself.
func (b *Book) wantedOf(a *account, h *holding, wants Credit) Credit {
	t := a.res.Type
	alone := h.debtor == nil && h.req.group == 0
	if alone || h.debtor != nil && h.debtor.group == 0 && len(h.debtor.requests) == 0 {
		return t.Against(h.credit, wants)
	}
	wants = nil
	for _, q := range a.queue {
		if q.called && q.flags&Try == 0 && !b.exempt(h, q) {
			wants = wants.Join(q.want)
		}
	}
	return t.Against(h.credit, wants)
}

// tellWaived tells a debtor what it may keep, if it has heard that it was
// called back.
func (b *Book) tellWaived(a *account, h *holding) {
	over := h.asked - min(h.asked, a.short())
	if h.idle.Empty() && over == 0 {
		return
	}
	if h.told > h.debtor.link.acked() {
		h.debtor.waives = true
		return
	}
	b.sendDown(h.debtor, Message{Kind: Waive, Resource: a.res, Credit: h.idle, Amount: over})
	h.idle = nil
	h.asked -= over
}

// short returns how much of a divisible type is to come from each debtor, if it
// does not use it.
func (a *account) short() uint64 {
	n := a.owed
	if len(a.queue) > 0 && a.queue[0].called && a.queue[0].flags&Try == 0 {
		q := a.queue[0]
		n = max(n, q.least-min(q.least, a.free().Size()))
	}
	return n
}

// withdraw tells a debtor what it could not be told before it had heard that it
// was called back.
func (b *Book) withdraw(d *debtor) {
	d.waives = false
	for _, a := range b.lentTo(d) {
		b.tellWaived(a, d.loans[a.res])
	}
}

// waived enters that the creditor does not want something back any more.
func (b *Book) waived(a *account, m Message) {
	if b.closing {
		return // it goes back anyhow
	}
	a.recalls = without(a.recalls, m.Credit)
	a.owed -= min(a.owed, m.Amount)
	a.stale = true
}
