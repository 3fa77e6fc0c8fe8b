package credit

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	simSeeds = flag.Int("credit.seeds", 0, "seeds of the simulation; 0: a few")
	simSteps = flag.Int("credit.steps", 1000, "steps for each seed")
	simFirst = flag.Uint64("credit.first", 1, "first seed; with -credit.seeds=1 it repeats a failure")
	simTrace = flag.Bool("credit.trace", false, "print all that happens")
)

// proves G44: what is done under a token that was taken back is refused.
// proves G45: books balance at every owner, no two holders conflict, and when
// all are gone the root has what it began with.
// proves G46: no request is granted before an earlier one that it conflicts
// with, and each that waits is served when those before it let go.
//
// Owners in chains, stars and trees, of whose messages some are lost, doubled
// and overtaken, who stop, resume, die, wind up and change their creditor, and
// whose clocks are wrong; everything follows from the seed.
func TestSimulation(t *testing.T) {
	seeds := *simSeeds
	if seeds == 0 {
		seeds = 60
	}
	var next, steps, grants, fences, refused atomic.Int64
	var failed atomic.Bool
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(seeds) || failed.Load() {
					return
				}
				seed := *simFirst + uint64(i)
				w := newWorld(seed)
				if err := w.run(*simSteps); err != nil && failed.CompareAndSwap(false, true) {
					t.Errorf("seed %d: %v\nagain: go test ./credit -run TestSimulation -credit.seeds=1 -credit.first=%d -credit.steps=%d -credit.trace",
						seed, err, seed, *simSteps)
				}
				steps.Add(int64(w.steps))
				grants.Add(int64(w.grants))
				fences.Add(int64(w.fences))
				refused.Add(int64(w.refused))
			}
		})
	}
	group.Wait()
	t.Logf("%d seeds from %d, %d steps, %d grants, %d fences, %d stale operations refused",
		seeds, *simFirst, steps.Load(), grants.Load(), fences.Load(), refused.Load())
}

const (
	simDrift  = 20000 // parts per million
	simLease  = 1000 * time.Millisecond
	simSpan   = 20
	simVolume = 100
)

var simSpace = NewType(TypeConfig{
	Name: "room", Modes: []string{"use"}, Conflicts: [][2]string{{"use", "use"}},
	Positions: simVolume, Divisible: true, Chunk: 8,
})

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

type happening struct {
	at   time.Duration
	seq  uint64
	do   func()
	text string
}

type agenda []happening

func (a *agenda) Len() int { return len(*a) }
func (a *agenda) Less(i, j int) bool {
	x, y := (*a)[i], (*a)[j]
	return x.at < y.at || x.at == y.at && x.seq < y.seq
}
func (a *agenda) Swap(i, j int) { (*a)[i], (*a)[j] = (*a)[j], (*a)[i] }
func (a *agenda) Push(x any)    { *a = append(*a, x.(happening)) }
func (a *agenda) Pop() any {
	x := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return x
}

type world struct {
	rng       *rand.Rand
	now       time.Duration
	seq       uint64
	agenda    agenda
	nodes     []*node
	byID      map[OwnerID]*node
	guard     Guard
	things    map[Resource]*thing
	resources []Resource
	pins      map[Resource][]*pin
	gone      map[OwnerID]bool // the engine has told of their end
	leases    bool
	leaves    bool // nobody but the root lends
	most      int  // spans of a debtor; 0: as many as it likes
	loss      float64
	double    float64
	callBack  time.Duration
	calm      bool // nobody does anything new
	err       error
	steps     int
	grants    int
	fences    int
	refused   int
	nextID    OwnerID
}

func newWorld(seed uint64) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 0)), byID: map[OwnerID]*node{}, things: map[Resource]*thing{},
		pins: map[Resource][]*pin{}, gone: map[OwnerID]bool{},
	}
	w.leases = w.rng.IntN(2) == 0
	w.loss = []float64{0, 0.03, 0.2}[w.rng.IntN(3)]
	w.double = []float64{0, 0.1}[w.rng.IntN(2)]
	w.callBack = []time.Duration{0, 200 * time.Millisecond, 600 * time.Millisecond}[w.rng.IntN(3)]
	for i := range 1 + w.rng.IntN(2) {
		w.resources = append(w.resources, Resource{Access, uint64(i)})
	}
	if w.rng.IntN(2) == 0 {
		w.resources = append(w.resources, Resource{simSpace, 7})
	}
	if w.rng.IntN(4) == 0 {
		w.resources = append(w.resources, Resource{Activation, 8})
	}
	for _, r := range w.resources {
		w.things[r] = &thing{}
	}
	shape := w.rng.IntN(3)
	w.leaves = shape == 0 && !w.leases
	w.most = []int{0, 0, 4, 20}[w.rng.IntN(4)]
	root := w.add(nil, 0)
	size := 2 + w.rng.IntN(8)
	if w.rng.IntN(6) == 0 {
		size = 12 + w.rng.IntN(24)
	}
	for range size {
		var p *node
		switch shape {
		case 0: // a star
			p = root
		case 1: // chains
			p = w.nodes[len(w.nodes)-1]
		default:
			p = w.nodes[w.rng.IntN(len(w.nodes))]
		}
		if p.depth() >= Depth-1 {
			p = root
		}
		w.add(p, uint64(max(0, w.rng.IntN(8)-5)))
	}
	for range len(w.nodes) {
		w.fault()
	}
	return w
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
		ID: n.id, Group: group, Drift: simDrift, CallBack: w.callBack, Retry: 50 * time.Millisecond,
		Margin: 10 * time.Millisecond, MaxSpans: w.most, Leaves: w.leaves,
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

func (w *world) at(d time.Duration, text string, do func()) {
	w.seq++
	heap.Push(&w.agenda, happening{w.now + d, w.seq, do, text})
}

func (w *world) tracef(format string, args ...any) {
	if *simTrace {
		fmt.Printf("%12v "+format+"\n", append([]any{w.now}, args...)...)
	}
}

func (w *world) failf(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %v: "+format, append([]any{w.now}, args...)...)
	}
}

// run runs so many steps of trouble, then lets everything come to rest and
// wind up, and looks whether anything is left.
func (w *world) run(steps int) error {
	for w.steps < steps && w.err == nil {
		w.step()
	}
	w.calm, w.loss, w.double = true, 0, 0
	for _, n := range w.nodes {
		w.resume(n)
	}
	w.settleDown("requests that wait", func() bool {
		for _, n := range w.nodes {
			if n.alive && len(n.asked)+len(n.pins) > 0 {
				return false
			}
		}
		return true
	})
	w.settleDown("call-backs for nobody", func() bool {
		return !slices.ContainsFunc(w.nodes, func(n *node) bool { return n.alive && n.callsBack() })
	})
	for _, n := range slices.Backward(w.nodes) {
		if n.alive {
			n.closing = true
			n.book.Close(n.clock())
			n.drain()
		}
	}
	w.settleDown("owners that wind up", func() bool {
		return !slices.ContainsFunc(w.nodes, func(n *node) bool { return n.alive && !n.book.closed })
	})
	if w.err != nil {
		return w.err
	}
	if w.leaves {
		w.calmFloors()
	}
	if w.err != nil {
		return w.err
	}
	for _, n := range w.nodes {
		if n.alive && (len(n.book.accounts)+len(n.book.local)+len(n.book.debtors) > 0) {
			return fmt.Errorf("owner %d is closed and has %d accounts, %d requests, %d debtors",
				n.id, len(n.book.accounts), len(n.book.local), len(n.book.debtors))
		}
	}
	return nil
}

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

// settleDown runs until done, which is to be soon.
func (w *world) settleDown(what string, done func() bool) {
	for until := w.now + 5*time.Minute; w.err == nil && !done(); {
		if w.now > until || len(w.agenda) == 0 {
			w.dump()
			w.failf("there are %s for ever", what)
			return
		}
		w.step()
	}
}

func (w *world) step() {
	w.steps++
	h := heap.Pop(&w.agenda).(happening)
	w.now = max(w.now, h.at)
	h.do()
}

// on runs do at n when it runs; never if it is dead.
func (w *world) on(n *node, do func()) {
	switch {
	case !n.alive:
	case n.stopped:
		n.inbox = append(n.inbox, do)
	default:
		do()
		n.drain()
	}
}

// delay is how long a message is under way.
func (w *world) delay() time.Duration {
	if w.rng.IntN(20) == 0 && !w.calm {
		return time.Duration(w.rng.Int64N(int64(400 * time.Millisecond)))
	}
	return time.Millisecond + time.Duration(w.rng.Int64N(int64(10*time.Millisecond)))
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

func (w *world) post(m Message) {
	w.tracef("  sent %v", m)
	debtor := w.byID[m.From]
	if to := w.byID[m.To]; to.parent == debtor {
		debtor = to
	}
	conn, times := debtor.conn, 1
	if w.rng.Float64() < w.double {
		times = 2
	}
	for range times {
		if w.rng.Float64() < w.loss {
			continue
		}
		w.at(w.delay(), "message", func() {
			to := w.byID[m.To]
			if !w.leases && (w.gone[m.From] || debtor.conn != conn || conn%2 == 1) {
				return // an engine without leases keeps what it has said
			}
			w.on(to, func() { w.deliver(to, m) })
		})
	}
}

func (w *world) deliver(n *node, m Message) {
	w.tracef("%d takes %v", n.id, m)
	var before []*request
	if a := n.book.accounts[m.Resource]; a != nil {
		before = slices.Clone(a.queue)
	}
	d := n.book.byID[m.From]
	again := d == nil || d.requests[m.Request] != nil
	n.book.Receive(n.clock(), m)
	if m.Kind == Borrow && !again {
		for _, out := range n.book.messages {
			if out.Kind == Grant && out.To == m.From && out.Request == m.Request {
				n.overtakes(before, &request{
					res: m.Resource, want: m.Credit, debtor: n.book.byID[m.From], group: n.book.byID[m.From].group,
				})
			}
		}
	}
	n.inOrder(before)
	w.check(m.Resource)
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
	case CalledBack, Waived, Fenced, Closed:
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

// compare looks whether a copy that the grant says is good is.
func (n *node) compare(p *pin, v Version) {
	w := n.w
	c := n.copies[p.res]
	if c == nil || c.version != v || p.res.Type != Access || n.book.cfg.Group != 0 || w.barred(p, p) || !n.book.Usable(n.clock()) {
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
	if d := p.book.byID[n.id]; d == nil || d.session != u.session || d.key != u.key {
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
	if spans != d.spans || spans > 5*n.book.cfg.MaxSpans {
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
