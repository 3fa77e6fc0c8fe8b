package credit

// spans returns how much of a debtor is kept for q: of an amount, which becomes
// positions when it is granted, one.
func (q *request) spans() int {
	if q.res.Type.divisible {
		return 1
	}
	return len(q.want)
}

// forget ends one of d's requests.
func (d *debtor) forget(q *request) {
	if d.requests[q.theirs] == q {
		delete(d.requests, q.theirs)
		d.spans -= q.spans()
	}
}

// count counts anew what is kept of a holding's debtor.
func (h *holding) count() {
	if h.debtor == nil {
		return
	}
	n := len(h.credit)
	for _, s := range h.sent {
		n += len(s.credit)
	}
	h.debtor.spans += n - h.spans
	h.spans = n
}

// press looks whether what a debtor has fell into too many pieces when it gave
// some back: then it is to give back what it does not hold, and if it only makes
// more of them, its session ends.
func (b *Book) press(d *debtor, a *account) {
	h := d.loans[a.res]
	switch {
	case d.spans <= b.cfg.MaxSpans || h == nil:
	case d.spans > 4*b.cfg.MaxSpans:
		b.evict(d)
	case a.res.Type.divisible:
		n := h.credit.Size()
		b.recall(h, Message{Kind: Recall, Resource: a.res, Amount: n - h.asked})
		h.asked, d.waives = n, true
	default:
		b.recall(h, Message{Kind: Recall, Resource: a.res, Credit: b.rest(h, false)})
	}
}

// losses are the resources of which a debtor lost something by force. It may show
// its old tokens for as long as it lives.
type losses struct {
	list []Resource // in the order in which it lost them
	set  map[Resource]bool
}

// full says whether a debtor has lost so much by force that it is to lose no more.
func (l *losses) full(most int) bool { return l != nil && len(l.list) > most }

// unfences says whether this owner can know when nobody has an old token.
func (b *Book) unfences() bool { return b.cfg.Leaves && b.up == nil && b.cfg.Lease == 0 }

// loses notes that a debtor, or if there is none a user of this owner, has lost
// something of r by force.
func (b *Book) loses(d *debtor, r Resource) {
	if !b.unfences() {
		return
	}
	if d == nil {
		b.lost[r]++
		return
	}
	l := b.losers[d.id]
	if l == nil {
		l = &losses{set: map[Resource]bool{}}
		b.losers[d.id] = l
	}
	if !l.set[r] {
		l.set[r] = true
		l.list = append(l.list, r)
		b.lost[r]++
	}
}

// found notes that one who had lost something of r by force shows no token of it
// any more.
func (b *Book) found(r Resource) {
	if b.lost[r] == 0 {
		return
	}
	if b.lost[r]--; b.lost[r] == 0 {
		delete(b.lost, r)
		b.events = append(b.events, Event{Kind: Unfenced, Resource: r})
	}
}

// bury ends what was noted of a debtor's losses: it is gone.
func (b *Book) bury(id OwnerID) {
	l := b.losers[id]
	if l == nil {
		return
	}
	delete(b.losers, id)
	for _, r := range l.list {
		b.found(r)
	}
}

// expel ends the session of a debtor that goes on: what it had it loses by force.
func (b *Book) expel(d *debtor) {
	for _, a := range b.lentTo(d) {
		b.loses(d, a.res)
	}
	b.drop(d)
}

// evict ends the session of a debtor that broke its bounds.
func (b *Book) evict(d *debtor) {
	for _, a := range b.lentTo(d) {
		b.events = append(b.events, Event{Kind: Fenced, Owner: d.id, Resource: a.res, Credit: d.loans[a.res].credit})
	}
	for _, a := range b.knownTo(d) {
		b.events = append(b.events, Event{Kind: Evicted, Owner: d.id, Resource: a.res})
	}
	b.expel(d)
	b.tellDown(d, Message{Kind: Gone})
}

// knownTo returns the accounts of which a debtor has something or waits for it, by age.
func (b *Book) knownTo(d *debtor) []*account {
	known := make(map[Resource]*account, len(d.loans)+len(d.requests))
	for r := range d.loans { // order does not matter: sorted next
		known[r] = b.accounts[r]
	}
	for _, q := range d.requests { // the same
		known[q.res] = b.accounts[q.res]
	}
	return byAge(known)
}

// lentTo returns the accounts of which a debtor has something, by age.
func (b *Book) lentTo(d *debtor) []*account {
	loans := make(map[Resource]*account, len(d.loans))
	for r := range d.loans { // order does not matter: sorted next
		loans[r] = b.accounts[r]
	}
	return byAge(loans)
}
