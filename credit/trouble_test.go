package credit

import (
	"slices"
	"time"
)

// rest has n's user do something after a while, and again.
func (n *node) rest() {
	w := n.w
	w.at(time.Duration(w.rng.Int64N(int64(120*time.Millisecond))), "act", func() {
		if !n.alive {
			return
		}
		if !w.calm && !n.closing {
			w.on(n, n.act)
		}
		if !w.calm {
			n.rest()
		}
	})
}

// act is one thing that a user does.
func (n *node) act() {
	w := n.w
	r := w.resources[w.rng.IntN(len(w.resources))]
	if w.calm || n.closing {
		return
	}
	var before []*request
	if a := n.book.accounts[r]; a != nil {
		before = slices.Clone(a.queue)
	}
	switch x := w.rng.IntN(20); {
	case x == 0:
		n.book.GiveBack(n.clock(), r, r.Type.All())
	case x == 1:
		ids := make([]uint64, 0, len(n.asked))
		for id := range n.asked { // order does not matter: sorted next
			ids = append(ids, id)
		}
		if slices.Sort(ids); len(ids) > 0 {
			n.book.Cancel(n.clock(), ids[w.rng.IntN(len(ids))])
		}
	case len(n.asked) > 5:
	default:
		q := w.request(n, r)
		id := n.book.Acquire(n.clock(), q)
		w.tracef("%d asks for %v %v %d flags %d: %d", n.id, r, q.Credit, q.Amount, q.Flags, id)
		n.asked[id] = r
		if got := n.book.local[id]; got != nil && got.state == granted {
			n.overtakes(before, got)
		}
	}
	n.inOrder(before)
	n.drain()
	w.check(r)
}

// request is something to ask for.
func (w *world) request(n *node, r Resource) Request {
	q := Request{Resource: r, Flags: MayBorrow | MayRevoke}
	switch w.rng.IntN(12) {
	case 0:
		q.Flags = 0
	case 1:
		q.Flags = MayBorrow
	case 2, 3:
		q.Flags |= Try
	}
	if w.rng.IntN(3) == 0 {
		q.Deadline = n.clock() + time.Duration(w.rng.Int64N(int64(time.Second)))
	}
	switch r.Type {
	case simSpace:
		q.Amount = 1 + w.rng.Uint64N(30)
	case Activation:
		q.Credit = Activation.All()
	default:
		first := w.rng.Uint64N(simSpan)
		end := first + 1 + w.rng.Uint64N(simSpan-first)
		mode := []Modes{Read, Read, Read, Read | Append, Append, Write, Read | Write}[w.rng.IntN(7)]
		switch w.rng.IntN(8) {
		case 0:
			first, end = 0, simSpan
		case 1:
			first, end, mode = 0, End, Delete
		}
		q.Credit = Make(Span{first, end, mode})
	}
	return q
}

// fault has something go wrong after a while, and again.
func (w *world) fault() {
	w.at(time.Duration(w.rng.Int64N(int64(8*time.Second))), "fault", func() {
		if w.calm {
			return
		}
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		switch w.rng.IntN(8) {
		case 0, 1, 2:
			w.stop(n)
		case 3:
			if n.parent != nil {
				w.kill(n)
			}
		case 4:
			if n.alive && !n.stopped {
				n.base, n.since = n.clock(), w.now
				n.ppm = w.rng.Int64N(2*simDrift) - simDrift
			}
		case 5:
			w.leave(n)
		case 6:
			if n.parent != nil && n.alive && n.parent.alive {
				w.part(n)
			}
		case 7:
			if len(w.nodes) < 60 {
				w.add(w.nodes[0], 0)
			}
		}
		w.fault()
	})
}

// stop has a node do nothing for a while; its clock goes on.
func (w *world) stop(n *node) {
	if n.stopped || !n.alive {
		return
	}
	w.tracef("%d stops", n.id)
	n.stopped = true
	w.at(time.Duration(w.rng.Int64N(int64(4*time.Second))), "resume", func() { w.resume(n) })
}

func (w *world) resume(n *node) {
	if !n.stopped || !n.alive {
		return
	}
	w.tracef("%d resumes", n.id)
	n.stopped = false
	for len(n.inbox) > 0 {
		do := n.inbox[0]
		n.inbox = n.inbox[1:]
		w.on(n, do)
	}
}

// kill ends a node; the others hear of it, or not, if there are leases.
func (w *world) kill(n *node) {
	if !n.alive {
		return
	}
	w.tracef("%d dies", n.id)
	n.alive = false
	for _, p := range n.pins { // order does not matter: all are forgotten
		w.forget(p)
	}
	w.bereave(n)
}

// bereave tells n's creditor and debtors that n is no more.
func (w *world) bereave(n *node) {
	if tell := !w.leases || w.rng.IntN(2) == 0; tell {
		w.at(w.delay(), "death", func() {
			w.gone[n.id] = true
			w.tell(n.parent, n, n.book.up.session)
		})
	}
	for _, c := range w.nodes {
		if c.parent != n || !c.alive {
			continue
		}
		c.parent = w.nodes[0]
		w.orphan(c, !w.leases || w.rng.IntN(2) == 0)
	}
}

// orphan gives c another creditor after a while, or the same anew, and may tell
// it before that the one it has is gone.
func (w *world) orphan(c *node, tell bool) {
	w.at(w.delay(), "death", func() {
		if tell {
			w.on(c, func() { c.book.CreditorDown(c.clock()) })
		}
		w.at(time.Duration(w.rng.Int64N(int64(2*time.Second))), "attach", func() {
			w.on(c, func() {
				c.conn = c.conn | 1 + 1
				c.book.Attach(c.clock(), c.parent.id)
			})
		})
	})
}

// leave winds a node up while the others go on. Those that borrow from it go to
// the root.
func (w *world) leave(n *node) {
	if !n.alive || n.stopped || n.closing || n.parent == nil {
		return
	}
	w.tracef("%d winds up", n.id)
	n.closing = true
	n.book.Close(n.clock())
	n.drain()
	w.awaitClosed(n)
}

func (w *world) awaitClosed(n *node) {
	w.at(200*time.Millisecond, "closed?", func() {
		switch {
		case !n.alive:
		case n.book.closed && len(n.pins) == 0:
			n.alive = false
			w.bereave(n)
		default:
			w.awaitClosed(n)
		}
	})
}

// part tells both ends of a connection that the other one is gone, which is not
// so.
func (w *world) part(n *node) {
	p := n.parent
	w.tracef("%d and %d are parted", n.id, p.id)
	n.conn |= 1
	n.parted = n.book.up.session
	w.tell(p, n, n.parted)
	w.orphan(n, true)
}

// tell tells p that a session of n has ended.
func (w *world) tell(p, n *node, session uint64) {
	w.on(p, func() {
		n.over = max(n.over, session)
		p.book.DebtorDown(p.clock(), n.id)
	})
}

// dump prints all books, if there is a trace.
func (w *world) dump() {
	for _, n := range w.nodes {
		if !n.alive {
			continue
		}
		w.tracef("owner %d closing %v asked %v up %+v", n.id, n.book.closing, n.asked, n.book.up)
		for _, a := range n.book.all() {
			w.tracef("  %v borrowed %v tainted %v raises %v recalls %v tried %v owed %d",
				a.res, a.borrowed, a.tainted, a.raises, a.recalls, a.tried, a.owed)
			for _, h := range a.holdings {
				w.tracef("    holder %+v: %v recalls %v tried %v asked %d", h.debtor, h.credit, h.recalls, h.tried, h.asked)
			}
			for _, q := range a.queue {
				w.tracef("    waits %+v", q)
			}
		}
	}
}
