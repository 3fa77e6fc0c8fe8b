package credit

import (
	"testing"
	"time"
)

// refusals returns the codes with which b refused something since it was last
// asked.
func refusals(b *Book) (codes []Code) {
	messages, _ := b.Take()
	for _, m := range messages {
		if m.Kind == Refuse {
			codes = append(codes, m.Code)
		}
	}
	return codes
}

// honest is a debtor that acknowledges everything at once.
func (b lender) honest(from OwnerID, m Message) []Code {
	d := b.byID[from]
	m.From, m.To, m.Session, m.Key, m.Seq = from, 1, 1, d.key, d.link.taken+1
	m.Ack, m.Seen = d.link.sent, d.link.sent
	if m.Resource.Type == nil {
		m.Resource = Resource{Access, 1}
	}
	b.Receive(time.Second, m)
	return refusals(b.Book)
}

// proves G47: a debtor that borrows more and more, of one resource or of many, or
// waits for it, is refused with ErrLimit, and may again when it has given some
// back.
func TestDebtorIsBounded(t *testing.T) {
	for name, ask := range map[string]func(i uint64) Message{
		"fragments": func(i uint64) Message { return Message{Credit: Make(Span{2 * i, 2*i + 1, Read})} },
		"resources": func(i uint64) Message {
			return Message{Credit: Make(Span{0, 1, Read}), Resource: Resource{Access, i}}
		},
		"waiting": func(uint64) Message {
			return Message{
				Credit: Make(Span{0, 1, Read}, Span{2, 3, Read}, Span{4, 5, Read}, Span{6, 7, Read}),
				Flags:  MayRevoke, Resource: Resource{Access, 99},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newLender(2)
			b.cfg.MaxSpans, b.cfg.MaxRequests = 100, 1000
			b.honest(3, Message{Kind: Borrow, Request: 1, Credit: Access.All(), Resource: Resource{Access, 99}})
			n := uint64(0)
			for {
				m := ask(n)
				m.Kind, m.Request = Borrow, n+1
				if codes := b.honest(2, m); len(codes) > 0 {
					if codes[0] != ErrLimit {
						t.Fatal(codes)
					}
					break
				}
				if n++; n > 500 {
					t.Fatal("it is lent any number")
				}
			}
			d := b.byID[2]
			if d.spans > 100 || d.spans < 90 {
				t.Errorf("after %d requests %d spans are kept, of 100", n, d.spans)
			}
			for i := range n {
				m := ask(i)
				if m.Kind = Return; m.Flags != 0 {
					m.Kind, m.Request = Withdraw, i+1
				}
				b.honest(2, m)
			}
			if d.spans != 0 || len(d.loans)+len(d.requests) != 0 {
				t.Errorf("all was given back, and %d spans are kept", d.spans)
			}
			if codes := b.honest(2, Message{Kind: Borrow, Request: n + 9, Credit: Make(Span{0, 1, Read})}); codes != nil {
				t.Errorf("then it may borrow again: %v", codes)
			}
		})
	}
}

// proves G47: who makes holes in what it has is called back the rest, which it
// keeps if it holds it; who makes holes on and on has its session ended.
func TestHoles(t *testing.T) {
	b := newLender(1)
	b.cfg.MaxSpans = 100
	b.honest(2, Message{Kind: Borrow, Request: 1, Credit: Make(Span{0, 1 << 20, Read})})
	d := b.byID[2]
	i := uint64(0)
	hole := func() {
		b.say(2, Message{Kind: Return, Credit: Make(Span{2 * i, 2*i + 1, Read}), Ack: d.link.sent, Seen: d.link.sent})
		i++
	}
	for i < 110 {
		hole()
	}
	if d.spans > 120 || d.link.acked() == d.link.sent {
		t.Fatalf("with %d spans nothing was called back", d.spans)
	}
	b.honest(2, Message{Kind: Return, Credit: Make(Span{300, 1 << 20, Read})}) // it holds some still
	if h := d.loans[Resource{Access, 1}]; d.spans > 120 || !h.idle.Empty() || len(h.recalls) > 0 {
		t.Errorf("%d spans, and it is not told that it may keep the rest: %d idle", d.spans, len(h.idle))
	}
	b = newLender(1)
	b.cfg.MaxSpans = 100
	b.honest(2, Message{Kind: Borrow, Request: 1, Credit: Make(Span{0, 1 << 20, Read})})
	d = b.byID[2]
	for i = 0; i < 1000 && b.byID[2] != nil; {
		hole()
	}
	if i < 350 || i > 450 || len(b.accounts) > 0 {
		t.Errorf("after %d holes of which it has all its session goes on: %v", i, b.byID[2] != nil)
	}
}

// proves G44, G47: what is refused does not grow with those that were fenced: the
// floors of a resource are few, whatever was taken; and when all who lost
// something of it are gone, there are none.
func TestFloorsAreBounded(t *testing.T) {
	b := lender{NewBook(Config{ID: 1, Leaves: true, CallBack: 1, MaxSpans: 1000}, time.Second)}
	var guard Guard
	now := time.Second
	step := func(do func()) {
		now += 10
		do()
		_, events := b.Take()
		for _, e := range events {
			switch e.Kind {
			case Fence:
				guard.Raise(e.Resource, e.Credit, e.Token)
			case Unfenced:
				guard.Forget(e.Resource)
			case Granted, Failed, CalledBack, Lost, Fenced, Closed, Waived, Evicted:
			}
		}
	}
	say := func(from OwnerID, m Message) {
		step(func() {
			m.From, m.To, m.Session = from, 1, 1
			if d := b.byID[from]; d != nil {
				m.Key, m.Seq, m.Ack = d.key, d.link.taken+1, d.link.sent
			}
			b.Receive(now, m)
		})
	}
	r := Resource{Access, 1}
	say(2, Message{Kind: Hello}) // lives, and is fenced now and then
	for i := range uint64(200) {
		victim := OwnerID(10 + i)
		say(victim, Message{Kind: Hello})
		for j := range uint64(5) {
			at := (i*37 + j*10) % 1000
			say(victim, Message{Kind: Borrow, Request: j + 1, Resource: r, Credit: Make(Span{at, at + 1, Write})})
		}
		say(2, Message{Kind: Borrow, Request: i + 1, Resource: r, Credit: Make(Span{i, i + 2, Write}), Flags: MayRevoke})
		hold := b.Acquire(now, Request{Resource: r, Credit: Make(Span{0, 1000, Read}), Flags: MayRevoke})
		step(func() { b.Tick(now) })
		step(func() { _ = b.Release(now, hold, Version{}) })
		if i%2 == 0 {
			step(func() { b.DebtorDown(now, victim) })
		}
	}
	spans := 0
	for _, f := range guard.floors[r] {
		spans += len(f.credit)
	}
	if spans == 0 || spans > 20 {
		t.Errorf("%d spans in %d floors", spans, len(guard.floors[r]))
	}
	for i := range uint64(200) {
		step(func() { b.DebtorDown(now, OwnerID(10+i)) })
	}
	step(func() { b.DebtorDown(now, 2) })
	if len(guard.floors)+len(b.losers)+len(b.lost) > 0 {
		t.Errorf("all are gone, and floors are left: %v", guard.floors)
	}
}

// proves G47: who was fenced on more and more resources is lent nothing more.
func TestFencedOften(t *testing.T) {
	b := newLender(1)
	b.cfg.Leaves, b.cfg.MaxSpans, b.cfg.CallBack = true, 50, 1
	now, i := time.Second, uint64(0)
	for ; i < 1000; i++ {
		r := Resource{Access, i}
		if codes := b.honest(2, Message{Kind: Borrow, Request: i + 1, Credit: Make(Span{0, 1, Write}), Resource: r}); len(codes) > 0 {
			break
		}
		hold := b.Acquire(now, Request{Resource: r, Credit: Make(Span{0, 1, Write}), Flags: MayRevoke})
		now += 10
		b.Tick(now)
		if err := b.Release(now, hold, Version{}); err != nil {
			t.Fatal(err)
		}
	}
	if i > 60 {
		t.Errorf("fenced on %d resources and lent more", i)
	}
	b.DebtorDown(now, 2)
	if len(b.losers)+len(b.lost) > 0 {
		t.Error("it is gone, and its losses are kept")
	}
}

// proves G44: what was fenced is refused for as long as one who lost it lives.
func TestFloorsWhileALoserLives(t *testing.T) {
	b := newLender(2)
	b.cfg.Leaves, b.cfg.CallBack = true, 1
	now, r := time.Second, Resource{Access, 1}
	unfenced := func() (told bool) {
		_, events := b.Take()
		for _, e := range events {
			told = told || e.Kind == Unfenced && e.Resource == r
		}
		return told
	}
	for id := range OwnerID(2) {
		at := uint64(10 * id)
		b.honest(2+id, Message{Kind: Borrow, Request: 1, Resource: r, Credit: Make(Span{at, at + 1, Write})})
	}
	hold := b.Acquire(now, Request{Resource: r, Credit: Make(Span{0, 100, Write}), Flags: MayRevoke})
	now += 10
	b.Tick(now)
	if err := b.Release(now, hold, Version{}); err != nil {
		t.Fatal(err) // it was not taken from them
	}
	if len(b.losers) != 2 || unfenced() {
		t.Errorf("%d have lost something, and both live", len(b.losers))
	}
	if b.DebtorDown(now, 2); unfenced() {
		t.Error("one is gone, and what the other lost is refused no more")
	}
	if b.DebtorDown(now, 3); !unfenced() {
		t.Error("both are gone, and what they lost is refused still")
	}
}

// proves G47: no message has more spans than a request may have, however many
// pieces what it is about fell into.
func TestMessagesAreBounded(t *testing.T) {
	b := newLender(1) // four
	for i := range uint64(10) {
		b.honest(2, Message{Kind: Borrow, Request: i + 1, Credit: Make(Span{2 * i, 2*i + 1, Read})})
	}
	b.Acquire(time.Second, Request{
		Resource: Resource{Access, 1}, Credit: Make(Span{0, 100, Write}), Flags: MayRevoke,
	})
	messages, _ := b.Take()
	var all Credit
	for _, m := range messages {
		if m.Kind != Recall || len(m.Credit) > 4 {
			t.Errorf("%v", m)
		}
		all = all.Join(m.Credit)
	}
	if len(all) != 10 {
		t.Errorf("called back is %v", all)
	}
}
