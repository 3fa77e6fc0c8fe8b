package credit

import (
	"testing"
	"time"
)

// proves G43: a lease that is over for the debtor when it comes, by its margin
// or because the answer is to no question, is none, rather than one without end.
func TestLeaseTooShort(t *testing.T) {
	for _, m := range []Message{
		{Within: time.Second, Sent: time.Millisecond},
		{Within: time.Hour, Sent: time.Hour},
	} {
		b := NewBook(Config{ID: 2, Creditor: 1, Margin: 2 * time.Second}, time.Millisecond)
		m.Kind, m.From, m.To, m.Session, m.Key = Welcome, 1, 2, 1, 7
		b.Receive(2*time.Millisecond, m)
		b.Receive(3*time.Millisecond, Message{
			Kind: Grant, From: 1, To: 2, Session: 1, Key: 7, Seq: 1, Resource: Resource{Access, 1}, Credit: Access.All(),
		})
		if b.up.state == attached || len(b.accounts) > 0 {
			t.Errorf("a lease of %v, asked for at %v: the session is there, its end at %v", m.Within, m.Sent, b.up.ends)
		}
	}
}

// lender is a root, to which debtors say what they like.
type lender struct{ *Book }

func newLender(debtors int) lender {
	b := lender{NewBook(Config{ID: 1, MaxRequests: 4}, time.Second)}
	for i := range debtors {
		b.say(OwnerID(2+i), Message{Kind: Hello})
	}
	return b
}

// say is the next message of a debtor.
func (b lender) say(from OwnerID, m Message) {
	m.From, m.To, m.Session, m.Resource = from, 1, 1, Resource{Access, 1}
	if d := b.byID[from]; d != nil {
		m.Key, m.Seq = d.key, d.link.taken+1
	}
	b.Receive(time.Second, m)
	b.Take()
}

// proves G47: a debtor that acknowledges nothing is not listened to after a
// while, and again when it does.
func TestNoAcks(t *testing.T) {
	b := newLender(1)
	for range 1000 {
		b.say(2, Message{Kind: Borrow}) // refused: it asks for nothing
	}
	link := &b.byID[2].link
	if len(link.unacked) > 16*4 {
		t.Errorf("%d messages are kept for who acknowledges none", len(link.unacked))
	}
	taken := link.taken
	b.say(2, Message{Kind: Borrow, Ack: link.sent})
	if link.taken != taken+1 || len(link.unacked) != 1 {
		t.Errorf("after it did, %d taken of %d, %d kept", link.taken-taken, 1, len(link.unacked))
	}
}

// proves G47: what is noted of grants is forgotten when the debtor has seen them.
func TestGrantsSeen(t *testing.T) {
	b := newLender(1)
	for i := range uint64(1000) {
		seen := b.byID[2].link.sent
		b.say(2, Message{Kind: Borrow, Request: i + 1, Credit: Make(Span{i, i + 1, Read}), Ack: seen, Seen: seen})
	}
	h := b.byID[2].loans[Resource{Access, 1}]
	if len(h.sent) != 1 || !h.credit.Equal(Make(Span{0, 1000, Read})) {
		t.Errorf("%d grants are noted, it has %v", len(h.sent), h.credit)
	}
}

// proves G40: a debtor that says it holds what it does not have has nobody
// refused.
func TestKeptByOthers(t *testing.T) {
	b := newLender(3)
	low, high := Make(Span{0, 10, Write}), Make(Span{10, 20, Write})
	b.say(2, Message{Kind: Borrow, Request: 1, Credit: low})
	b.say(3, Message{Kind: Borrow, Request: 1, Credit: high})
	b.say(4, Message{Kind: Borrow, Request: 1, Credit: low, Flags: MayRevoke | Try})
	b.say(3, Message{Kind: Kept, Credit: low})
	if b.byID[4].requests[1] == nil {
		t.Error("refused because of who has something else")
	}
	b.say(2, Message{Kind: Kept, Credit: low})
	if b.byID[4].requests[1] != nil {
		t.Error("not refused, although it is held")
	}
}

// proves G42, G47: for a debtor that does not answer a bounded number of
// call-backs is kept, however many others want what it has, a piece each, and
// give up; it hears that they did once it answers.
func TestCalledBackInSilence(t *testing.T) {
	for _, flags := range []Flags{MayRevoke, MayRevoke | Try} {
		b := newLender(2)
		b.say(2, Message{Kind: Borrow, Request: 1, Credit: Make(Span{0, 1 << 20, Read})})
		for i := range uint64(10000) {
			ack := b.byID[3].link.sent
			b.say(3, Message{Kind: Borrow, Request: i, Credit: Make(Span{i, i + 1, Write}), Flags: flags, Ack: ack})
			b.say(3, Message{Kind: Withdraw, Request: i, Ack: ack + 1})
		}
		link := &b.byID[2].link
		if n := len(link.unacked); n > silentMost+4 {
			t.Errorf("%d messages are kept", n)
		}
		h := b.byID[2].loans[Resource{Access, 1}]
		if len(h.recalls) > 0 {
			t.Errorf("%d call-backs for nobody", len(h.recalls))
		}
		b.say(2, Message{Kind: Renew, Ack: link.sent})
		if n := len(link.unacked); flags&Try == 0 && (n != 1 || link.unacked[0].Kind != Waive || !h.idle.Empty()) {
			t.Errorf("once it has answered, it is told %v", link.unacked)
		}
	}
}
