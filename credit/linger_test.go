package credit_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mpool-go/mpool/credit"
)

// tapped is an engine that notes the kinds of what travels, in both directions.
type tapped struct {
	credit.Engine
	mu    sync.Mutex
	kinds []credit.Kind
}

func (t *tapped) note(m credit.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kinds = append(t.kinds, m.Kind)
}

// since returns what has travelled since it was last asked.
func (t *tapped) since() []credit.Kind {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.kinds
	t.kinds = nil
	return k
}

func (t *tapped) Connect(debtor credit.OwnerID, p credit.Peer) (credit.Link, error) {
	l, err := t.Engine.Connect(debtor, tappedPeer{p, t})
	return tappedLink{l, t}, err
}

type tappedLink struct {
	credit.Link
	t *tapped
}

func (l tappedLink) Send(m credit.Message) {
	l.t.note(m)
	l.Link.Send(m)
}

type tappedPeer struct {
	credit.Peer
	t *tapped
}

func (p tappedPeer) Deliver(m credit.Message) {
	p.t.note(m)
	p.Peer.Deliver(m)
}

const (
	testAck    = 100 * time.Millisecond
	testLinger = 10 * time.Millisecond
)

func lingering(t *testing.T) (w *tree, root, leaf *credit.Owner, tap *tapped) {
	w = newTree(t)
	cfg := credit.Config{Ack: testAck, Retry: time.Second}
	root = w.open(nil, credit.Options{Config: cfg})
	tap = &tapped{Engine: credit.NewLocal(root)}
	cfg.ID = 99
	leaf, err := credit.Open(credit.Options{Config: cfg, Linger: testLinger}, tap)
	if err != nil {
		t.Fatal(err)
	}
	w.owners = append(w.owners, leaf)
	synctest.Wait()
	tap.since()
	return w, root, leaf, tap
}

func travelled(t *testing.T, tap *tapped, when string, want ...credit.Kind) {
	t.Helper()
	synctest.Wait()
	if got := tap.since(); !slices.Equal(got, want) {
		t.Errorf("%s: %v travelled, want %v", when, got, want)
	}
}

// proves G41: what is given back unasked, and what is granted and given back, costs no
// message and no acknowledgement of its own while others follow; without, each goes
// when its time has come, and nothing is said again after that.
func TestWhatNobodyWaitsForGoesWithTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, root, leaf, tap := lingering(t)
		defer w.close()
		for range 5 {
			release(t, acquire(t, leaf, access(credit.Read, 0, 10, anyhow)))
			leaf.GiveBack(object, object.Type.All())
		}
		travelled(t, tap, "five times", credit.Borrow, credit.Grant,
			credit.Return, credit.Borrow, credit.Grant, credit.Return, credit.Borrow, credit.Grant,
			credit.Return, credit.Borrow, credit.Grant, credit.Return, credit.Borrow, credit.Grant)
		time.Sleep(testLinger / 2)
		travelled(t, tap, "soon")
		time.Sleep(testLinger)
		travelled(t, tap, "later", credit.Return)
		if n, _ := root.Size(); n != 0 {
			t.Errorf("the creditor has %d resources in its book", n)
		}
		time.Sleep(2 * testAck)
		travelled(t, tap, "much later", credit.Ack)
		time.Sleep(time.Hour)
		travelled(t, tap, "in an hour")
	})
}

// proves G41: a debtor that is granted much at once acknowledges it before its creditor
// takes it for one that does not listen.
func TestManyGrantsAreAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, root, leaf, tap := lingering(t)
		defer w.close()
		all := acquire(t, root, access(credit.Write, 0, 1000, anyhow))
		var calls []<-chan *credit.Hold
		for i := range uint64(40) {
			calls = append(calls, waits(t, leaf, access(credit.Write, 10*i, 10*i+5, anyhow)))
		}
		synctest.Wait()
		tap.since()
		release(t, all)
		synctest.Wait()
		acks := 0
		for _, k := range tap.since() {
			if k == credit.Ack {
				acks++
			}
		}
		if acks != 2 {
			t.Errorf("%d acknowledgements of 40 grants, want 2 at once", acks)
		}
		for _, c := range calls {
			release(t, granted(t, c))
		}
	})
}

// proves G42: what is kept to go with the next message keeps nobody waiting: it goes
// when somebody wants it.
func TestWhatLingersIsGivenWhenWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, root, leaf, tap := lingering(t)
		defer w.close()
		other := w.open(root, credit.Options{})
		for _, flags := range []credit.Flags{anyhow, anyhow | credit.Try} {
			release(t, acquire(t, leaf, access(credit.Read, 0, 10, anyhow)))
			leaf.GiveBack(object, object.Type.All())
			synctest.Wait()
			tap.since()
			start := time.Now()
			release(t, acquire(t, other, access(credit.Write, 0, 10, flags)))
			if d := time.Since(start); d != 0 {
				t.Errorf("who wants it has waited for %v", d)
			}
			other.GiveBack(object, object.Type.All())
			travelled(t, tap, "wanted", credit.Recall, credit.Return, credit.Ack)
		}
	})
}
