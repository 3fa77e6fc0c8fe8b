package credit

import (
	"testing"
	"time"
)

// proves G6: which limit has refused is told to who asked, through those between, and kept
// for nobody: who is told again hears the code only.
func TestLimitIsTold(t *testing.T) {
	all := Credit{{0, 10, Write}}
	limit := &Limit{Kind: "memory", Name: "somebody", Used: 1, Asked: 2, Limit: 2, Text: "no more"}
	b := newBorrower(Config{Retry: time.Second})
	_, m, _ := b.acquire(time.Second, all)
	borrow := find(m, Borrow)
	m, e := b.hears(time.Second, Message{Kind: Refuse, Request: borrow.Request, Code: ErrLimit, Limit: limit})
	if len(e) != 1 || e[0].Kind != Failed || e[0].Code != ErrLimit || e[0].Limit != limit {
		t.Errorf("its user hears %+v, %v", e, m)
	}

	up := Message{From: 3, To: 2, Session: 1}
	say := func(kind Kind, more Message) []Message {
		more.From, more.To, more.Session, more.Key, more.Kind = up.From, up.To, up.Session, up.Key, kind
		b.Receive(time.Second, more)
		m, _ := b.Take()
		return m
	}
	welcome := find(say(Hello, Message{}), Welcome)
	up.Key = welcome.Key
	borrow = find(say(Borrow, Message{Seq: 1, Resource: Resource{Access, 1}, Credit: all, Request: 9, Flags: MayBorrow}), Borrow)
	m, _ = b.hears(time.Second, Message{Kind: Refuse, Request: borrow.Request, Code: ErrLimit, Limit: limit})
	told := find(m, Refuse)
	if told == nil || told.To != 3 || told.Request != 9 || told.Limit != limit {
		t.Fatalf("its debtor hears %+v", told)
	}
	b.Tick(3 * time.Second)
	m, _ = b.Take()
	again := find(m, Refuse)
	if again == nil || again.Seq != told.Seq || again.Code != ErrLimit || again.Limit != nil {
		t.Errorf("it hears again %+v", again)
	}
}
