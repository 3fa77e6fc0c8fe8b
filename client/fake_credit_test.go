package client

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// fakeDebtor is a session's owner at the fake daemon: what comes for it goes over
// the socket.
type fakeDebtor struct {
	s    *fakeSession
	pool ioctl.Handle
	id   credit.OwnerID
	link credit.Link
}

// credit takes a message of credits.
func (s *fakeSession) credit(h ioctl.Header, m *ioctl.CreditMessage) {
	f := s.f
	f.mu.Lock()
	root, d, lacks := f.lender, s.debtors[m.Pool], f.lacks
	f.packs = max(f.packs, 1+len(m.More))
	if m.Message.Kind == credit.Hello {
		f.hellos++
	}
	refused := f.noRoom
	if root == nil {
		refused = errNoCredits
	}
	f.mu.Unlock()
	if len(m.More) > 0 && lacks&ioctl.FeaturePacked != 0 {
		f.t.Errorf("%d messages of credits come together, which was not agreed", 1+len(m.More))
	}
	if refused != nil {
		h.Flags = ioctl.FlagReply | ioctl.FlagError
		s.send(h, ioctl.NewError(refused))
		return
	}
	if d == nil {
		d = &fakeDebtor{s: s, pool: m.Pool, id: credit.OwnerID(s.id<<32) | credit.OwnerID(m.Pool)}
		link, err := credit.NewLocal(root).Connect(d.id, d)
		if err != nil {
			f.t.Error(err)
			return
		}
		d.link = link
		f.mu.Lock()
		s.debtors[m.Pool] = d
		f.mu.Unlock()
	}
	for c := range m.All() {
		c.From, c.To = d.id, rootID
		d.link.Send(c)
	}
}

// rootID is the fake daemon's as a creditor.
const rootID credit.OwnerID = 1

// Deliver implements [credit.Peer].
func (d *fakeDebtor) Deliver(m credit.Message) {
	d.s.send(ioctl.Header{Op: ioctl.OpCredit, Flags: ioctl.FlagReply}, &ioctl.CreditMessage{Pool: d.pool, Message: m})
}

// Down implements [credit.Peer].
func (*fakeDebtor) Down() {}

// send sends a message, if the client is there.
func (s *fakeSession) send(h ioctl.Header, m ioctl.Message) {
	b, err := ioctl.Append(nil, h, m)
	if err != nil {
		s.f.t.Error(err)
		return
	}
	_, _ = s.conn.Write(b)
}

// leaveCredits ends what a session has.
func (s *fakeSession) leaveCredits() {
	s.f.mu.Lock()
	debtors := s.debtors
	s.f.mu.Unlock()
	for _, d := range debtors {
		d.link.Close()
	}
}

// lender is a fake daemon with credits.
type lender struct {
	*fake
	root *credit.Owner
}

func newLender(t *testing.T, callBack time.Duration) *lender {
	t.Helper()
	s := &lender{fake: newFake(t)}
	root, err := credit.Open(credit.Options{Config: credit.Config{ID: rootID, CallBack: callBack, Version: s.version}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.root, s.lender = root, root
	t.Cleanup(root.Abandon)
	return s
}

// version is the root's: an object's birth.
func (s *lender) version(r credit.Resource) credit.Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.objects[layout.ObjectID(r.ID)]; o != nil {
		return credit.Version{uint64(o.created.UnixMilli()), 0}
	}
	return credit.Version{}
}

// open dials and opens the pool.
func (f *fake) open(o CreditOptions) (*Conn, *pool) {
	f.t.Helper()
	c := f.connect(Options{Credits: &o})
	p, err := c.OpenPool(f.t.Context(), "data")
	if err != nil {
		f.t.Fatal(err)
	}
	return c, p.(*pool)
}

// put makes a committed mblock, or another one in the place of the one before.
func (s *lender) put(id layout.ObjectID, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.created = s.created.Add(time.Millisecond)
	s.objects[id] = &fakeObject{id: id, created: s.created, committed: true, data: data}
}

func (s *lender) remove(id layout.ObjectID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, id)
}

// requests returns how many requests the daemon has answered.
func (s *lender) requests() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.done {
		n += k
	}
	return n
}

// delete acquires what a delete needs, at the root.
func (s *lender) delete(ctx context.Context, id layout.ObjectID, f credit.Flags) (*credit.Hold, error) {
	return s.root.Acquire(ctx, credit.Request{
		Resource: credit.Resource{Type: credit.Access, ID: uint64(id)},
		Credit:   credit.Make(credit.Span{End: credit.End, Modes: credit.Delete}),
		Flags:    credit.MayRevoke | f,
	})
}

func contents(n int, seed uint64) []byte {
	p := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

var errNoCredits = api.Errorf(api.ENOTSUP, "", "the daemon has no credits")
