package credit

import "slices"

// calmFloors tells the root that all are gone: then no token is refused any more,
// because nobody has one.
func (w *world) calmFloors() {
	root := w.nodes[0]
	for _, n := range w.nodes[1:] {
		root.book.DebtorDown(root.clock(), n.id)
		root.drain()
	}
	if len(w.guard.floors)+len(root.book.losers)+len(root.book.lost) > 0 {
		w.failf("all are gone, and floors are %v, losers %v", w.guard.floors, root.book.losers)
	}
}

// callsBack says whether n wants anything of anybody, or believes that its
// creditor does. Of amounts, a debtor may: what it gave back on its own account
// counted for what it was asked.
func (n *node) callsBack() bool {
	for _, a := range n.book.all() {
		if len(a.recalls) > 0 || !a.tried.Empty() {
			return true
		}
		for _, h := range a.holdings {
			if len(h.recalls) > 0 || !h.idle.Empty() || h.asked > 0 || h.called {
				return true
			}
		}
	}
	return false
}

// overtakes complains if q was granted before one of those that waited.
func (n *node) overtakes(before []*request, q *request) {
	for _, p := range before {
		if p.state == waiting && q.behind(p) {
			n.w.failf("owner %d grants %v before %v, which waited", n.id, q.want, p.want)
		}
	}
}

// inOrder complains if one of those that waited was granted before an earlier
// one.
func (n *node) inOrder(before []*request) {
	for i, q := range before {
		if q.state == granted {
			n.overtakes(before[:i], q)
		}
	}
}

// compare looks whether a copy that the grant says is good is. Whose session the root
// knows to be over is the last to know it, and reads what is old until then.
func (n *node) compare(p *pin, v Version) {
	w := n.w
	c := n.copies[p.res]
	if c == nil || c.version != v || p.res.Type != Access || n.book.cfg.Group != 0 || w.barred(p, p) || w.ended(p) || !n.book.Usable(n.clock()) {
		return
	}
	for _, s := range p.credit.Meet(c.credit) {
		if s.Modes&Read == 0 {
			continue
		}
		for i := s.First; i < min(s.End, simSpan); i++ {
			if c.data[i] != w.things[p.res].data[i] {
				w.failf("owner %d has a copy of version %v, as its grant says, but it is not what is there", n.id, v)
			}
		}
	}
}

// good says whether p's owner may use p by all that it can know.
func (w *world) good(p *pin) bool {
	return p.n.alive && !p.lost && p.n.book.Usable(p.n.clock()) && !w.ended(p)
}

// ended says whether nothing is done under p any more: the root was told the end
// of its session.
func (w *world) ended(p *pin) bool {
	return w.leaves && p.n.parent != nil && p.session <= p.n.over
}

// barred says whether p's token is refused for all of it that conflicts with q;
// with itself: for any of it.
func (w *world) barred(p, q *pin) bool {
	if p == q {
		return w.guard.Check(p.res, p.credit, p.token) != nil
	}
	k := p.res.Type.Against(p.credit, q.credit)
	for _, f := range w.guard.floors[p.res] {
		if p.token.Compare(f.token) < 0 {
			k = k.Diff(f.credit)
		}
	}
	return k.Empty()
}

// fellows says whether p and q are of one group.
func (w *world) fellows(p, q *pin) bool {
	g := p.n.book.cfg.Group
	return p.n != q.n && g != 0 && g == q.n.book.cfg.Group && p.n.parent == q.n.parent ||
		p.n != q.n && g != 0 && g == q.n.book.cfg.Group && (p.n.parent == q.n || q.n.parent == p.n)
}

// check looks at one resource everywhere.
func (w *world) check(r Resource) {
	if r.Type == nil || w.err != nil {
		return
	}
	pins := w.pins[r]
	for i, p := range pins {
		for _, q := range pins[:i] {
			if r.Type.Conflict(p.credit, q.credit) && w.good(p) && w.good(q) && !w.fellows(p, q) && !w.barred(p, q) && !w.barred(q, p) {
				w.failf("owner %d holds %v %v while owner %d holds %v %v",
					p.n.id, p.credit, p.token, q.n.id, q.credit, q.token)
			}
		}
	}
	for _, n := range w.nodes {
		if n.alive {
			w.balance(n, r)
			w.inLease(n)
		}
	}
}

// inLease checks that who may use by its own clock what it borrowed has its
// session with its creditor still, and that this may use what it lends.
//
// proves G43: a debtor stops before its creditor considers its lease over.
func (w *world) inLease(n *node) {
	u := n.book.up
	if u == nil || u.state != attached || u.ends == 0 || u.bye || u.session == n.parted || !n.book.Usable(n.clock()) {
		return
	}
	p := w.byID[u.id]
	if !p.alive || p.closing {
		return
	}
	evicted := slices.ContainsFunc(p.book.events, func(e Event) bool { return e.Kind == Fenced && e.Owner == n.id })
	if d := p.book.byID[n.id]; d == nil && evicted {
		return
	} else if d == nil || d.session != u.session || d.key != u.key {
		w.failf("owner %d has a lease by its own clock, and owner %d has ended it", n.id, p.id)
	}
	if pu := p.book.up; pu != nil && pu.ends != 0 && !p.book.Usable(p.clock()) {
		w.failf("owner %d has a lease and owner %d, of whom it is, has none", n.id, p.id)
	}
}

// balance checks n's book of r, and against those of its debtors.
func (w *world) balance(n *node, r Resource) {
	a := n.book.accounts[r]
	if a == nil {
		return
	}
	for _, d := range n.book.debtors {
		w.bounded(n, d)
	}
	for i, h := range a.holdings {
		if h.credit.Empty() || !h.credit.normal() || !a.borrowed.Has(h.credit) {
			w.failf("owner %d has %v and a holder has %v of it", n.id, a.borrowed, h.credit)
		}
		for _, o := range a.holdings[:i] {
			group := func(h *holding) uint64 {
				if h.debtor != nil {
					return h.debtor.group
				}
				return n.book.cfg.Group
			}
			if r.Type.Conflict(h.credit, o.credit) && (group(h) == 0 || group(h) != group(o)) {
				w.failf("owner %d: holders have %v and %v", n.id, h.credit, o.credit)
			}
		}
	}
	own := a.unheld(a.borrowed)
	lent := a.borrowed.Diff(own)
	if !own.Meet(lent).Empty() || !own.Join(lent).Equal(a.borrowed) {
		w.failf("owner %d: own %v and lent %v are not what it borrowed, %v", n.id, own, lent, a.borrowed)
	}
	for _, h := range a.holdings {
		if d := h.debtor; d != nil {
			w.reconcile(n, a, d, h)
		}
	}
}

// bounded checks what is kept of a debtor.
func (w *world) bounded(n *node, d *debtor) {
	spans := 0
	for _, h := range d.loans { // order does not matter: a sum
		for _, s := range h.sent {
			spans += len(s.credit)
		}
		spans += len(h.credit)
	}
	for _, q := range d.requests { // order does not matter: a sum
		spans += q.spans()
	}
	if spans != d.spans || spans > 4*n.book.cfg.MaxSpans+40 {
		w.failf("owner %d keeps %d spans of owner %d, counts %d, and may keep %d", n.id, spans, d.id, d.spans, n.book.cfg.MaxSpans)
	}
}

// reconcile checks a loan in the creditor's book against the debtor's: they
// differ by what is under way.
func (w *world) reconcile(n *node, a *account, d *debtor, h *holding) {
	child := w.byID[d.id]
	if !child.alive || child.book.up.id != n.id || child.book.up.session != d.session || child.book.up.state != attached {
		return
	}
	var has, toChild, toParent, taken Credit
	if ca := child.book.accounts[a.res]; ca != nil {
		has = ca.borrowed
	}
	for _, m := range d.link.unacked {
		if m.Resource == a.res && m.Kind == Grant {
			toChild = toChild.Join(m.Credit)
		}
		if m.Resource == a.res && m.Kind == Taken {
			taken = taken.Join(m.Credit)
		}
	}
	for _, m := range child.book.up.link.unacked {
		if m.Resource == a.res && m.Kind == Return {
			toParent = toParent.Join(m.Credit)
		}
	}
	if !h.credit.Join(taken).Has(has) {
		w.failf("owner %d has %v of owner %d, who lent it %v", child.id, has, n.id, h.credit)
	}
	if !has.Join(toChild).Join(toParent).Has(h.credit) {
		w.failf("owner %d lent %v to owner %d, which has %v", n.id, h.credit, child.id, has)
	}
}
