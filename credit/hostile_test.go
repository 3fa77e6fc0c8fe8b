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
