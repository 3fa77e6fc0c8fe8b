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
		seeds = 40
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
	if seeds >= 40 && !t.Failed() && min(grants.Load(), fences.Load(), refused.Load()) == 0 {
		t.Error("nothing was granted, nobody was fenced, or nothing stale was refused")
	}
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

func (a *agenda) Push(x any) { *a = append(*a, x.(happening)) }

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
	waiting   int  // requests of a debtor, and spans of a message; 0: as many as it likes
	loss      float64
	double    float64
	callBack  time.Duration
	ack       time.Duration
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
	w.ack = []time.Duration{0, 10 * time.Millisecond}[w.rng.IntN(2)]
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
	w.waiting = []int{0, 0, 2, 6}[w.rng.IntN(4)]
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

func (w *world) post(m Message) {
	w.tracef("  sent %v", m)
	if w.waiting > 0 && len(m.Credit) > w.waiting {
		w.failf("a message of %d spans: %v", len(m.Credit), m)
	}
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
	again := d == nil || d.link.taken >= m.Seq || d.requests[m.Request] != nil
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
