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

// proves G40: a debtor that says it holds what it does not have has nobody
// refused.
func TestKeptByOthers(t *testing.T) {
	b := NewBook(Config{ID: 1}, time.Second)
	r := Resource{Access, 1}
	say := func(from OwnerID, m Message) {
		m.From, m.To, m.Session, m.Resource = from, 1, 1, r
		if d := b.byID[from]; d != nil {
			m.Key, m.Seq = d.key, d.link.taken+1
		}
		b.Receive(time.Second, m)
	}
	for from := OwnerID(2); from <= 4; from++ {
		say(from, Message{Kind: Hello})
	}
	low, high := Make(Span{0, 10, Write}), Make(Span{10, 20, Write})
	say(2, Message{Kind: Borrow, Request: 1, Credit: low})
	say(3, Message{Kind: Borrow, Request: 1, Credit: high})
	say(4, Message{Kind: Borrow, Request: 1, Credit: low, Flags: MayRevoke | Try})
	say(3, Message{Kind: Kept, Credit: low})
	if b.byID[4].requests[1] == nil {
		t.Error("refused because of who has something else")
	}
	say(2, Message{Kind: Kept, Credit: low})
	if b.byID[4].requests[1] != nil {
		t.Error("not refused, although it is held")
	}
}
