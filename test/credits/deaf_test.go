package credits

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

// A client that does not read what comes is ended before it takes much of the daemon's
// memory, whether it asks and asks or is asked and asked; who waits for what it has gets
// it, others go on, and nothing of it is left.
//
// proves G42 G47
func TestDeaf(t *testing.T) {
	const objects = 1600
	b := newBenchOn(t, daemon.Options{Config: "[credits]\ncall_back = '0s'\n", Profiles: true}, 128<<20) // nobody is fenced
	var ids []layout.ObjectID
	for range objects { // uncommitted, so that it takes no time
		o := b.ask(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: b.pool}).(*ioctl.Opened)
		b.ask(ioctl.OpClose, &ioctl.Target{Handle: o.Handle})
		ids = append(ids, o.ID)
	}
	honest, err := dialWire(b.d.Socket, poolName)
	if err != nil {
		t.Fatal(err)
	}
	defer honest.end()
	mine, err := honest.acquire(ctx, b.mblock(), credit.Write, 0, credit.End, 0)
	if err != nil {
		t.Fatal(err)
	}
	resting := b.d.Goroutines()
	heap := b.d.Heap()
	for name, deaf := range map[string]func(*deafDebtor){
		"asks": func(w *deafDebtor) {
			for n := 0; w.borrow(ids[n%objects]) == nil; n++ {
				if n == 100_000 {
					t.Fatal("it may ask for ever")
				}
			}
		},
		"is asked": func(w *deafDebtor) {
			for i, id := range ids {
				if err := w.borrow(id); err != nil {
					t.Fatal(err)
				}
				if _, err := w.next(); err != nil {
					t.Fatal(i, err)
				}
			}
			w.ack() // it has all of them, and hears no more
			var askers [3]*wire
			got := make(chan error, objects)
			for i := range askers {
				var err error
				if askers[i], err = dialWire(b.d.Socket, poolName); err != nil {
					t.Fatal(err)
				}
				defer askers[i].end()
			}
			for i, id := range ids {
				go func() {
					h, err := askers[i%len(askers)].acquire(ctx, id, credit.Write, 0, credit.End, 0)
					if err == nil {
						err = h.Release(credit.Version{})
					}
					got <- err
				}()
			}
			for range ids {
				if err := <-got; err != nil {
					t.Error(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(b.events(ioctl.EventClientReaped))
			w := newDeaf(t, b)
			deaf(w)
			if !mine.Valid() {
				t.Error("who did nothing has lost its credit")
			}
			var end ioctl.Event
			daemon.Eventually(t, "it is ended for it", func() bool {
				for _, e := range b.events(ioctl.EventClientReaped)[before:] {
					if e.DetectedBy == ioctl.SourceProtocol {
						end = e
					}
				}
				return end.Type != 0
			})
			if name == "is asked" && end.Credits != objects {
				t.Errorf("it had %d credits, want %d", end.Credits, objects)
			}
			_ = w.raw.Close()
			daemon.Eventually(t, "nothing of it is left", func() bool { return len(b.list()) == 1 })
		})
	}
	if err := mine.Release(credit.Version{}); err != nil {
		t.Error(err)
	}
	honest.end()
	b.residue()
	daemon.Eventually(t, "its goroutines have ended", func() bool {
		for what, n := range b.d.Goroutines() {
			if n > resting[what]+4 { // of the runtime's own, and those that come and go
				return false
			}
		}
		return true
	})
	if more := b.d.Heap() - heap; more > 8<<20 {
		t.Errorf("%d bytes are left", more)
	}
}

// deafDebtor speaks as an owner of credits does, and reads only when it is told to.
type deafDebtor struct {
	raw  *daemon.Raw
	pool ioctl.Handle
	key  uint64
	sent uint64
	seen uint64
}

func newDeaf(t *testing.T, b *bench) *deafDebtor { return newDeafWith(t, b, 0) }

// newDeafWith is newDeaf of a client that knows features of the protocol.
func newDeafWith(t *testing.T, b *bench, features uint64) *deafDebtor {
	t.Helper()
	raw, err := daemon.GreetedWith(b.d.Socket, features)
	if err != nil {
		t.Fatal(err)
	}
	w := &deafDebtor{raw: raw}
	if err := raw.Conn.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if w.pool, err = raw.OpenPool(poolName); err != nil {
		t.Fatal(err)
	}
	if err := w.send(credit.Message{Kind: credit.Hello}); err != nil {
		t.Fatal(err)
	}
	m, err := w.next()
	if err != nil || m.Kind != credit.Welcome {
		t.Fatalf("%v, %v", m, err)
	}
	w.key = m.Key
	return w
}

func (w *deafDebtor) send(m credit.Message) error {
	m.Session, m.Key, m.Ack, m.Seen = 1, w.key, w.seen, w.seen
	return w.raw.Send(ioctl.Header{Op: ioctl.OpCredit, Tag: 1}, &ioctl.CreditMessage{Pool: w.pool, Message: m})
}

func (w *deafDebtor) borrow(id layout.ObjectID) error {
	w.sent++
	return w.send(credit.Message{
		Kind: credit.Borrow, Seq: w.sent, Request: w.sent, Flags: credit.MayBorrow | credit.MayRevoke,
		Resource: credit.Resource{Type: credit.Access, ID: uint64(id)},
		Credit:   credit.Make(credit.Span{First: 0, End: credit.End, Modes: credit.Write}),
	})
}

func (w *deafDebtor) ack() { _ = w.send(credit.Message{Kind: credit.Ack}) }

// next receives a credit message.
func (w *deafDebtor) next() (credit.Message, error) {
	h, body, err := w.raw.Receive()
	if err != nil {
		return credit.Message{}, err
	}
	var m ioctl.CreditMessage
	switch {
	case h.Op != ioctl.OpCredit:
		return credit.Message{}, fmt.Errorf("%v comes", h.Op)
	case h.Flags&ioctl.FlagError != 0:
		return credit.Message{}, errors.New("an error comes")
	}
	if err := ioctl.Decode(&m, body); err != nil {
		return credit.Message{}, err
	}
	w.seen = max(w.seen, m.Message.Seq)
	return m.Message, nil
}
