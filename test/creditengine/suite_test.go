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
	mu sync.Mutex
	g  credit.Guard // +checklocks:mu
}

func (g *guard) raise(r credit.Resource, c credit.Credit, t credit.Token) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.g.Raise(r, c, t)
}

func (g *guard) check(r credit.Resource, c credit.Credit, t credit.Token) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.g.Check(r, c, t)
}

// proves G48: the engine between owners of one process.
func TestLocal(t *testing.T) {
	creditengine.Run(t, synctest.Test, func(t *testing.T) creditengine.Rig {
		g := &guard{}
		root, err := credit.Open(credit.Options{
			Config: credit.Config{ID: 1, CallBack: callBack}, Fence: g.raise,
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(root.Abandon)
		return creditengine.Rig{
			Engine: credit.NewLocal(root), CallBack: callBack, Check: g.check,
			Quiet: func(*testing.T) (int, int) {
				synctest.Wait()
				return root.Size()
			},
		}
	})
}

// proves G43, G48: an engine with leases, over a network that loses, doubles and
// delays what it carries, and tells nobody of anybody's end.
func TestSimulatedNetwork(t *testing.T) {
	creditengine.Run(t, synctest.Test, func(t *testing.T) creditengine.Rig {
		g, seed := &guard{}, rand.Uint64()
		t.Logf("seed %d", seed)
		const lease = 2 * time.Second
		root, err := credit.Open(credit.Options{
			Config: credit.Config{ID: 1, CallBack: callBack, Lease: lease, Drift: 1000}, Fence: g.raise,
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := &network{root: root, local: credit.NewLocal(root), cut: map[credit.OwnerID]bool{}, rng: rand.New(rand.NewPCG(seed, 1))}
		t.Cleanup(func() {
			root.Abandon()
			n.wait.Wait()
		})
		return creditengine.Rig{
			Engine: n, Lease: lease, CallBack: callBack, Check: g.check,
			Debtor: credit.Config{Drift: 1000, Margin: 10 * time.Millisecond},
			Cut:    func(id credit.OwnerID) { n.set(id, true) },
			Mend:   func(id credit.OwnerID) { n.set(id, false) },
			Quiet: func(*testing.T) (int, int) {
				time.Sleep(2 * lease) // of the bubble's clock: the dead are noticed by then
				synctest.Wait()
				return root.Size()
			},
		}
	})
}

// network is an engine that loses, doubles and delays messages.
type network struct {
	root  *credit.Owner
	local *credit.Local
	wait  sync.WaitGroup

	mu  sync.Mutex
	cut map[credit.OwnerID]bool // +checklocks:mu
	rng *rand.Rand              // +checklocks:mu
}

func (n *network) Creditor() credit.OwnerID { return n.local.Creditor() }

func (n *network) set(id credit.OwnerID, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[id] = cut
}

func (n *network) Connect(debtor credit.OwnerID, peer credit.Peer) (credit.Link, error) {
	link, err := n.local.Connect(debtor, &farPeer{n, debtor, peer})
	if err != nil {
		return nil, err
	}
	return &farLink{n, debtor, link}, nil
}

// carry calls deliver as often as the message arrives, later.
func (n *network) carry(debtor credit.OwnerID, deliver func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	times := []int{0, 1, 1, 1, 1, 1, 1, 1, 1, 2}[n.rng.IntN(10)]
	if n.cut[debtor] {
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

type farPeer struct {
	n      *network
	debtor credit.OwnerID
	peer   credit.Peer
}

func (p *farPeer) Deliver(m credit.Message) { p.n.carry(p.debtor, func() { p.peer.Deliver(m) }) }
func (p *farPeer) Down()                    {} // nobody tells

type farLink struct {
	n      *network
	debtor credit.OwnerID
	link   credit.Link
}

func (l *farLink) Send(m credit.Message) { l.n.carry(l.debtor, func() { l.link.Send(m) }) }
func (l *farLink) Close()                {} // nobody tells
