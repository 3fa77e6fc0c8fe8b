package credits

import (
	"testing"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

// proves G44, G45: what a debtor says in one message is done in its order, and what
// follows from it comes together and in order, also when that is more than one message
// has: a credit given back and asked for again has a later token.
func TestPacked(t *testing.T) {
	b := newBench(t, "")
	w := newDeafWith(t, b, ioctl.FeaturePacked)
	var ids []layout.ObjectID
	for range ioctl.MaxCredits {
		ids = append(ids, b.mblock())
	}
	borrow := func(id layout.ObjectID) credit.Message {
		w.sent++
		return credit.Message{
			Kind: credit.Borrow, Session: 1, Key: w.key, Seq: w.sent, Request: w.sent, Flags: credit.MayBorrow,
			Resource: credit.Resource{Type: credit.Access, ID: uint64(id)},
			Credit:   credit.Make(credit.Span{First: 0, End: credit.End, Modes: credit.Read}),
		}
	}
	send := func(list []credit.Message) {
		t.Helper()
		m, left := ioctl.PackCredits(w.pool, list, ioctl.FeaturePacked)
		if len(left) > 0 {
			t.Fatalf("%d messages do not go together", len(left))
		}
		if err := w.raw.Send(ioctl.Header{Op: ioctl.OpCredit, Tag: 1}, &m); err != nil {
			t.Fatal(err)
		}
	}
	seq := uint64(0)
	tokens := make(map[uint64]credit.Token)
	granted := func(n int) {
		t.Helper()
		for n > 0 {
			h, body, err := w.raw.Receive()
			if err != nil || h.Op != ioctl.OpCredit || h.Flags != ioctl.FlagReply {
				t.Fatalf("%+v, %v", h, err)
			}
			var m ioctl.CreditMessage
			if err := ioctl.Decode(&m, body); err != nil {
				t.Fatal(err)
			}
			if 1+len(m.More) != n {
				t.Errorf("%d messages came together, want %d", 1+len(m.More), n)
			}
			for c := range m.All() {
				if seq++; c.Kind != credit.Grant || c.Seq != seq || tokens[c.Resource.ID].Compare(c.Token) >= 0 {
					t.Fatalf("the %d. is %v after %v", seq, c, tokens[c.Resource.ID])
				}
				tokens[c.Resource.ID] = c.Token
				n--
			}
		}
	}
	var first, second []credit.Message
	for _, id := range ids {
		first = append(first, borrow(id))
	}
	send(first)
	granted(len(ids))
	for _, id := range ids[:ioctl.MaxCredits/2] {
		give := borrow(id)
		give.Kind, give.Request, give.Flags, give.Ack, give.Seen = credit.Return, 0, 0, seq, seq
		second = append(second, give, borrow(id))
	}
	send(second)
	granted(len(ids) / 2)
	if err := w.raw.Close(); err != nil {
		t.Fatal(err)
	}
	b.residue()
}

// Messages of credits go together only to and from who has said in hello that it knows
// that: to others each goes alone, in the form of the first version, also when many have
// waited; of others each is to come so.
func TestPackedNotAgreed(t *testing.T) {
	b := newBench(t, "")
	id := b.mblock()
	const n = 700 // more than a socket has room for
	for _, features := range []uint64{0, ioctl.FeaturePacked, ioctl.Features} {
		agreed := features&ioctl.FeaturePacked != 0
		w := newDeafWith(t, b, features)
		for i := range uint64(n) {
			w.sent++
			if err := w.send(credit.Message{
				Kind: credit.Borrow, Seq: w.sent, Request: w.sent, Flags: credit.MayBorrow,
				Resource: credit.Resource{Type: credit.Access, ID: uint64(id)},
				Credit:   credit.Make(credit.Span{First: 2 * i, End: 2*i + 1, Modes: credit.Read}),
			}); err != nil {
				t.Fatal(err)
			}
		}
		daemon.Eventually(t, "all are granted, and nothing was read", func() bool { return len(b.list()) == n })
		granted, most := 0, 0
		for granted < n {
			h, body, err := w.raw.Receive()
			if err != nil || h.Op != ioctl.OpCredit || h.Flags != ioctl.FlagReply {
				t.Fatalf("%+v, %v", h, err)
			}
			var m ioctl.CreditMessage
			if err := ioctl.Decode(&m, body); err != nil {
				t.Fatal(err)
			}
			most = max(most, 1+len(m.More))
			for c := range m.All() {
				switch c.Kind { //nolint:exhaustive // nothing else comes
				case credit.Grant:
					granted++
				case credit.Ack:
				default:
					t.Fatalf("%v comes", c)
				}
			}
		}
		if together := most > 1; together != agreed {
			t.Errorf("features %x: up to %d came together", features, most)
		}
		m, _ := ioctl.PackCredits(w.pool, []credit.Message{{Kind: credit.Ack, Session: 1}, {Kind: credit.Ack, Session: 1}}, ioctl.Features)
		if err := w.raw.Send(ioctl.Header{Op: ioctl.OpCredit, Tag: 1}, &m); err != nil {
			t.Fatal(err)
		}
		if err := w.raw.Send(ioctl.Header{Op: ioctl.OpVersion, Tag: 2}, &ioctl.Empty{}); err != nil && agreed {
			t.Fatal(err)
		}
		h, _, err := w.raw.Receive()
		for err == nil && h.Op == ioctl.OpCredit && h.Flags == ioctl.FlagReply {
			h, _, err = w.raw.Receive()
		}
		if listens := err == nil && h.Op == ioctl.OpVersion; listens != agreed {
			t.Errorf("features %x: after two together comes %+v, %v", features, h, err)
		}
		_ = w.raw.Close()
		b.residue()
	}
}
