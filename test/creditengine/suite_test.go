package creditengine_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/test/creditengine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const callBack = 5 * time.Second

// guard is where the work is done.
type guard struct {
	mu    sync.Mutex
	g     credit.Guard // +checklocks:mu
	least credit.Token // +checklocks:mu
}

// succeed refuses what the predecessors of a root granted.
func (g *guard) succeed(first uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.least = credit.Token{first}
}

func (g *guard) raise(r credit.Resource, c credit.Credit, t credit.Token) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.g.Raise(r, c, t)
}

func (g *guard) check(r credit.Resource, c credit.Credit, t credit.Token) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.Compare(g.least) < 0 {
		return credit.ErrStale
	}
	return g.g.Check(r, c, t)
}

// root is a creditor, or its successor.
type root struct {
	t   *testing.T
	cfg credit.Config
	g   guard
	now *credit.Owner
}

func newRoot(t *testing.T, cfg credit.Config) *root {
	t.Helper()
	r := &root{t: t, cfg: cfg}
	r.open()
	t.Cleanup(func() { r.now.Abandon() })
	return r
}

func (r *root) open() {
	r.t.Helper()
	r.cfg.ID++
	now, err := credit.Open(credit.Options{Config: r.cfg, Fence: r.g.raise}, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.now = now
}

// succeed opens another in its place, which has died.
func (r *root) succeed() {
	r.t.Helper()
	r.cfg.FirstToken += 1 << 40
	r.cfg.Grace = r.cfg.Lease
	r.g.succeed(r.cfg.FirstToken)
	r.open()
}

// proves G47, G48: the engine between owners of one process.
func TestLocal(t *testing.T) {
	creditengine.Run(t, synctest.Test, func(t *testing.T) creditengine.Rig {
		r := newRoot(t, credit.Config{CallBack: callBack})
		e := &breakable{Local: credit.NewLocal(r.now), ends: map[credit.OwnerID]func(){}}
		return creditengine.Rig{
			Engine: e, CallBack: callBack, Check: r.g.check, Break: e.end,
			Succeed: func(*testing.T) credit.Engine {
				r.now.Abandon()
				r.succeed()
				return credit.NewLocal(r.now)
			},
			Quiet: func(*testing.T) (int, int) {
				synctest.Wait()
				return r.now.Size()
			},
		}
	})
}

// breakable is an engine of one process whose connections can end.
type breakable struct {
	*credit.Local

	mu   sync.Mutex
	ends map[credit.OwnerID]func() // +checklocks:mu
}

func (e *breakable) Connect(debtor credit.OwnerID, peer credit.Peer) (credit.Link, error) {
	link, err := e.Local.Connect(debtor, peer)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ends[debtor] = func() {
		peer.Down()
		link.Close()
	}
	return link, err
}

// end ends a debtor's connection.
func (e *breakable) end(debtor credit.OwnerID) {
	e.mu.Lock()
	end := e.ends[debtor]
	e.mu.Unlock()
	end()
}

// proves G43, G47, G48: an engine with leases, over a network that loses, doubles and
// delays what it carries, and tells nobody of anybody's end.
func TestSimulatedNetwork(t *testing.T) {
	creditengine.Run(t, synctest.Test, func(t *testing.T) creditengine.Rig {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		const lease = 2 * time.Second
		r := newRoot(t, credit.Config{CallBack: callBack, Lease: lease, Drift: 1000})
		n := newNetwork(r.now, rand.New(rand.NewPCG(seed, 1)))
		t.Cleanup(func() {
			r.now.Abandon()
			n.wait.Wait()
		})
		return creditengine.Rig{
			Engine: n, Lease: lease, CallBack: callBack, Check: r.g.check,
			Debtor: credit.Config{Drift: 1000, Margin: 10 * time.Millisecond},
			Cut:    func(id credit.OwnerID) { n.set(id, true) },
			Mend:   func(id credit.OwnerID) { n.set(id, false) },
			Break:  n.end,
			Succeed: func(*testing.T) credit.Engine {
				n.setAll() // of its end nobody hears
				r.now.Abandon()
				r.succeed()
				next := newNetwork(r.now, rand.New(rand.NewPCG(seed, 2)))
				t.Cleanup(next.wait.Wait)
				return next
			},
			Quiet: func(*testing.T) (int, int) {
				time.Sleep(2 * lease) // of the bubble's clock: the dead are noticed by then
				synctest.Wait()
				return r.now.Size()
			},
		}
	})
}

// network is an engine that loses, doubles and delays messages.
type network struct {
	local *credit.Local
	wait  sync.WaitGroup

	mu   sync.Mutex
	dead bool                         // +checklocks:mu
	cut  map[credit.OwnerID]bool      // +checklocks:mu
	rng  *rand.Rand                   // +checklocks:mu
	far  map[credit.OwnerID]*farOwner // +checklocks:mu
}

func newNetwork(root *credit.Owner, rng *rand.Rand) *network {
	return &network{
		local: credit.NewLocal(root), rng: rng, cut: map[credit.OwnerID]bool{}, far: map[credit.OwnerID]*farOwner{},
	}
}

func (n *network) Creditor() credit.OwnerID { return n.local.Creditor() }

func (n *network) set(id credit.OwnerID, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[id] = cut
}

// setAll loses everything from now on.
func (n *network) setAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dead = true
}

// end ends the connection of a debtor, of which the creditor does not hear.
func (n *network) end(debtor credit.OwnerID) {
	n.mu.Lock()
	peer := n.far[debtor].peer
	n.mu.Unlock()
	peer.Down()
}

// Connect connects a debtor. The creditor does not notice when one is connected anew.
func (n *network) Connect(debtor credit.OwnerID, peer credit.Peer) (credit.Link, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f := n.far[debtor]; f != nil {
		f.peer = peer
		return f, nil
	}
	f := &farOwner{n: n, debtor: debtor, peer: peer}
	link, err := n.local.Connect(debtor, f)
	if err != nil {
		return nil, err
	}
	f.link = link
	n.far[debtor] = f
	return f, nil
}

// carry calls deliver as often as the message arrives, later.
func (n *network) carry(debtor credit.OwnerID, deliver func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	times := []int{0, 1, 1, 1, 1, 1, 1, 1, 1, 2}[n.rng.IntN(10)]
	if n.cut[debtor] || n.dead {
		times = 0
	}
	for range times {
		delay := time.Duration(n.rng.Int64N(int64(20 * time.Millisecond)))
		n.wait.Go(func() {
			time.Sleep(delay) // of the bubble's clock
			deliver()
		})
	}
}

// farOwner is a debtor at the other end of the network, seen from here, and its link.
type farOwner struct {
	n      *network
	debtor credit.OwnerID
	link   credit.Link
	peer   credit.Peer // n.mu is held: it changes when the debtor connects anew
}

func (f *farOwner) Deliver(m credit.Message) {
	f.n.mu.Lock()
	peer := f.peer
	f.n.mu.Unlock()
	f.n.carry(f.debtor, func() { peer.Deliver(m) })
}
func (f *farOwner) Down()                 {} // nobody tells
func (f *farOwner) Send(m credit.Message) { f.n.carry(f.debtor, func() { f.link.Send(m) }) }
func (f *farOwner) Close()                {} // nobody tells
