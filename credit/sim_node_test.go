package credit

import (
	"slices"
	"time"
)

// node is one owner of the simulation.
type node struct {
	w       *world
	book    *Book
	parent  *node
	id      OwnerID
	alive   bool
	stopped bool
	closing bool
	over    uint64        // the last session that the creditor knows to be over
	parted  uint64        // the session that the creditor was told the end of
	conn    int           // number of the connection with its creditor; odd: broken
	base    time.Duration // its clock at since
	since   time.Duration
	ppm     int64
	inbox   []func() // of one that is stopped
	tick    time.Duration
	pins    map[uint64]*pin
	asked   map[uint64]Resource // requests that wait
	copies  map[Resource]*copied
}

// pin is a hold that a node's user believes to have.
type pin struct {
	n       *node
	id      uint64
	session uint64 // in which it was granted
	res     Resource
	credit  Credit
	token   Token
	lost    bool
	flight  int // operations under way
	version Version
}

// copied is what a node keeps of a resource that it has read.
type copied struct {
	version Version
	credit  Credit
	data    [simSpan]uint64
}

// thing is a resource at the place where the work is done.
type thing struct {
	version Version
	data    [simSpan]uint64
}

func (n *node) depth() int {
	if n.parent == nil {
		return 0
	}
	return n.parent.depth() + 1
}

func (w *world) add(parent *node, group uint64) *node {
	w.nextID++
	n := &node{
		w: w, parent: parent, id: w.nextID, alive: true, base: time.Duration(w.rng.Int64N(int64(time.Hour))),
		since: w.now, ppm: w.rng.Int64N(2*simDrift) - simDrift,
		pins: map[uint64]*pin{}, asked: map[uint64]Resource{}, copies: map[Resource]*copied{},
	}
	cfg := Config{
		ID: n.id, Group: group, Drift: simDrift, CallBack: w.callBack, Retry: 50 * time.Millisecond, Ack: w.ack,
		Margin: 10 * time.Millisecond, MaxSpans: w.most, MaxRequests: w.waiting, Leaves: w.leaves,
	}
	if w.leases {
		cfg.Lease = simLease
	}
	if parent != nil {
		cfg.Creditor = parent.id
		for _, c := range w.nodes { // a group's members do not lend: floors would hit their fellows
			if c == parent && c.book.cfg.Group != 0 {
				cfg.Creditor = w.nodes[0].id
				n.parent = w.nodes[0]
			}
		}
	} else {
		cfg.Version = func(r Resource) Version { return w.things[r].version }
	}
	n.book = NewBook(cfg, n.clock())
	w.nodes = append(w.nodes, n)
	w.byID[n.id] = n
	n.drain()
	n.rest()
	return n
}

// clock is what n's clock shows.
func (n *node) clock() time.Duration {
	d := n.w.now - n.since
	return n.base + d + d*time.Duration(n.ppm)/1e6
}

// drain sends what n's book says and looks at what it has become.
func (n *node) drain() {
	w := n.w
	messages, events := n.book.Take()
	for _, e := range events {
		n.happened(e)
	}
	for _, m := range messages {
		w.post(m)
	}
	if next, ok := n.book.Next(); ok && (n.tick == 0 || next < n.tick || n.clock() >= n.tick) {
		n.tick = next
		w.at(max(0, next-n.clock())*1e6/time.Duration(1e6+n.ppm)+1, "tick", func() {
			if n.tick == next {
				n.tick = 0
			}
			w.on(n, func() { n.book.Tick(n.clock()) })
		})
	}
}

func (n *node) happened(e Event) {
	w := n.w
	w.tracef("%d event %d request %d %v %v", n.id, e.Kind, e.Request, e.Credit, e.Token)
	switch e.Kind {
	case Granted:
		w.grants++
		delete(n.asked, e.Request)
		p := &pin{n: n, id: e.Request, res: e.Resource, credit: e.Credit, token: e.Token}
		if n.parent != nil {
			p.session = n.book.up.session
		}
		n.pins[p.id] = p
		w.pins[p.res] = append(w.pins[p.res], p)
		n.compare(p, e.Version)
		w.at(time.Duration(w.rng.Int64N(int64(150*time.Millisecond))), "use", func() { w.on(n, func() { n.use(p) }) })
	case Failed:
		delete(n.asked, e.Request)
	case Lost:
		n.pins[e.Request].lost = true
		n.w.forget(n.pins[e.Request])
	case Fence:
		w.fences++
		w.guard.Raise(e.Resource, e.Credit, e.Token)
	case Unfenced:
		w.guard.Forget(e.Resource)
	case Fenced:
		if c := w.byID[e.Owner]; c.alive && n.book.byID[e.Owner] == nil && c.book.up.id == n.id {
			c.parted = c.book.up.session // it broke its bounds: its session was ended
		}
	case CalledBack, Waived, Closed, Evicted:
	}
}

func (w *world) forget(p *pin) {
	w.pins[p.res] = slices.DeleteFunc(w.pins[p.res], func(x *pin) bool { return x == p })
}

// use works under p for a while, then releases it.
func (n *node) use(p *pin) {
	w := n.w
	if n.pins[p.id] != p {
		return
	}
	if !p.lost && p.res.Type == Access && n.book.Usable(n.clock()) && w.rng.IntN(4) > 0 {
		p.flight++
		delay := w.delay()
		if w.rng.IntN(30) == 0 {
			delay += time.Duration(w.rng.Int64N(int64(2 * time.Second)))
		}
		w.at(delay, "work", func() { w.work(p) })
		if w.rng.IntN(3) == 0 {
			w.at(delay/2, "use", func() { w.on(n, func() { n.use(p) }) })
			return
		}
	}
	n.release(p)
}

// release lets go of p once nothing is under way under it.
func (n *node) release(p *pin) {
	w := n.w
	if n.pins[p.id] != p {
		return
	}
	if p.flight > 0 {
		w.at(20*time.Millisecond, "release", func() { w.on(n, func() { n.release(p) }) })
		return
	}
	var before []*request
	if a := n.book.accounts[p.res]; a != nil {
		before = slices.Clone(a.queue)
	}
	w.tracef("%d releases %d", n.id, p.id)
	err := n.book.Release(n.clock(), p.id, p.version)
	delete(n.pins, p.id)
	w.forget(p)
	if err != nil && !p.lost && n.book.Usable(n.clock()) {
		// the step itself may have been what lost it
		if events := n.book.events; !slices.ContainsFunc(events, func(e Event) bool { return e.Kind == Lost && e.Request == p.id }) {
			w.failf("owner %d cannot release %d: %v", n.id, p.id, err)
		}
	}
	n.book.events = slices.DeleteFunc(n.book.events, func(e Event) bool { return e.Kind == Lost && e.Request == p.id })
	n.inOrder(before)
	w.check(p.res)
}

// work is an operation that arrives where the work is done.
func (w *world) work(p *pin) {
	w.on(p.n, func() { p.flight-- })
	if w.ended(p) {
		return
	}
	if err := w.guard.Check(p.res, p.credit, p.token); err != nil {
		w.refused++
		return
	}
	for _, x := range w.pins[p.res] {
		if x != p && !w.fellows(x, p) && w.good(x) && p.res.Type.Conflict(x.credit, p.credit) && !w.barred(x, p) {
			w.failf("an operation of owner %d under %v %v is done while owner %d has %v %v",
				p.n.id, p.credit, p.token, x.n.id, x.credit, x.token)
		}
	}
	x := w.things[p.res]
	for _, s := range p.credit {
		if s.Modes&(Write|Append|Delete) == 0 {
			continue
		}
		x.version[0]++
		if s.Modes&(Write|Delete) == 0 {
			continue // what is appended was not there before
		}
		for i := s.First; i < min(s.End, simSpan); i++ {
			x.data[i] = x.version[0]
		}
	}
	p.version = x.version
	if p.credit[0].Modes&Read != 0 {
		p.n.copies[p.res] = &copied{x.version, p.credit, x.data}
	}
}
