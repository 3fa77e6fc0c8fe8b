package credit

import (
	"testing"
	"time"
)

// borrower is an owner with a session, without leases, to which its creditor says
// what it likes.
type borrower struct {
	*Book
	seq uint64
}

func newBorrower(cfg Config) *borrower {
	cfg.ID, cfg.Creditor = 2, 1
	b := &borrower{Book: NewBook(cfg, time.Second)}
	b.hears(time.Second, Message{Kind: Welcome, Sent: time.Second})
	return b
}

// hears gives b the next message of its creditor and returns what it says then.
func (b *borrower) hears(now time.Duration, m Message) ([]Message, []Event) {
	m.From, m.To, m.Session, m.Key = 1, 2, 1, 7
	if m.Kind != Welcome {
		b.seq++
		m.Seq, m.Resource = b.seq, Resource{Access, 1}
	}
	b.Receive(now, m)
	return b.Take()
}

// acquire enters a request and returns what b says then.
func (b *borrower) acquire(now time.Duration, c Credit) (uint64, []Message, []Event) {
	id := b.Acquire(now, Request{Resource: Resource{Access, 1}, Credit: c, Flags: MayBorrow | MayRevoke})
	m, e := b.Take()
	return id, m, e
}

// find returns the message of that kind.
func find(messages []Message, k Kind) *Message {
	for i := range messages {
		if messages[i].Kind == k {
			return &messages[i]
		}
	}
	return nil
}

// happens says whether there is an event of that kind.
func happens(events []Event, k EventKind) bool {
	for _, e := range events {
		if e.Kind == k {
			return true
		}
	}
	return false
}

// proves G44: what a middle takes from its own it grants to nobody before the
// root has refused the tokens.
func TestGrantWaitsForFence(t *testing.T) {
	b := newBorrower(Config{CallBack: time.Second})
	block := Make(Span{0, 10, Write})
	first, out, _ := b.acquire(time.Second, block)
	if _, e := b.hears(time.Second, Message{Kind: Grant, Request: find(out, Borrow).Request, Credit: block, Token: Token{5}}); !happens(e, Granted) {
		t.Fatal("the first was not granted")
	}
	if _, _, e := b.acquire(time.Second, block); happens(e, Granted) {
		t.Fatal("two have it")
	}
	b.Tick(3 * time.Second)
	out, e := b.Take()
	raise := find(out, Raise)
	if !happens(e, Lost) || raise == nil || happens(e, Granted) {
		t.Fatalf("past the deadline: %v, events %v", out, e)
	}
	b.Tick(4 * time.Second)
	if _, e = b.Take(); happens(e, Granted) {
		t.Fatal("granted while the token of the one before is good")
	}
	if _, e = b.hears(4*time.Second, Message{Kind: Raised, Request: raise.Request}); !happens(e, Granted) {
		t.Error("not granted after its token was refused")
	}
	if err := b.Release(4*time.Second, first, Version{}); err == nil {
		t.Error("the first has what it lost")
	}
}

// proves G44: when the creditor takes part of what a user holds, the rest of it
// is nobody's before the root has refused the tokens.
func TestRestOfLostHold(t *testing.T) {
	b := newBorrower(Config{})
	block := Make(Span{0, 10, Write})
	_, out, _ := b.acquire(time.Second, block)
	b.hears(time.Second, Message{Kind: Grant, Request: find(out, Borrow).Request, Credit: block, Token: Token{5}})
	out, e := b.hears(time.Second, Message{Kind: Taken, Credit: Make(Span{0, 5, Write})})
	raise := find(out, Raise)
	if !happens(e, Lost) || raise == nil || !raise.Credit.Equal(Make(Span{5, 10, Write})) {
		t.Fatalf("the user lost it: %v, tokens for the rest: %v", happens(e, Lost), raise)
	}
	if _, _, e = b.acquire(time.Second, Make(Span{5, 10, Write})); happens(e, Granted) {
		t.Error("the next has the rest while the token of the one before is good")
	}
	if _, e = b.hears(time.Second, Message{Kind: Raised, Request: raise.Request}); !happens(e, Granted) {
		t.Error("the rest is not granted after that")
	}
}

// proves G43: a lease counts from when it was asked for, by the debtor's clock,
// however late the answer comes.
func TestLeaseCountsFromTheAsking(t *testing.T) {
	b := NewBook(Config{ID: 2, Creditor: 1, Drift: 1000, Margin: 10 * time.Millisecond}, time.Second)
	down := Message{From: 1, To: 2, Session: 1, Key: 7, Kind: Welcome, Sent: time.Second, Within: 10 * time.Second}
	b.Receive(4*time.Second, down) // 3 s later
	end := 11*time.Second - 30*time.Millisecond
	if !b.Usable(end-time.Millisecond) || b.Usable(end) {
		t.Errorf("its end is at %v, not %v", b.up.ends, end)
	}
	down.Kind, down.Sent = Renewed, 5*time.Second
	b.Receive(8*time.Second, down)
	if end += 4 * time.Second; !b.Usable(end-time.Millisecond) || b.Usable(end) {
		t.Errorf("renewed, its end is at %v, not %v", b.up.ends, end)
	}
}

// proves G43: who has a lease itself gives none that ends later, not even when it
// is to give a longer one.
func TestLeaseWithinTheOneAbove(t *testing.T) {
	b := NewBook(Config{ID: 2, Creditor: 1, Lease: time.Hour, Margin: time.Second}, time.Second)
	b.Receive(time.Second, Message{
		From: 1, To: 2, Session: 1, Key: 7, Kind: Welcome, Sent: time.Second, Within: time.Minute,
	})
	b.Take()
	b.Receive(31*time.Second, Message{From: 3, To: 2, Session: 1, Kind: Hello})
	out, _ := b.Take()
	welcome := find(out, Welcome)
	if welcome == nil || welcome.Within != 29*time.Second {
		t.Fatalf("of a lease that ends in 29 s: %v", welcome)
	}
	b.Receive(41*time.Second, Message{From: 3, To: 2, Session: 1, Key: welcome.Key, Kind: Renew})
	out, _ = b.Take()
	if renewed := find(out, Renewed); renewed == nil || renewed.Within != 19*time.Second {
		t.Errorf("renewed, of one that ends in 19 s: %v", renewed)
	}
}

// proves G46: when all that a user holds is taken for a later request, because one
// deadline was earlier, the earlier one that waits for another part of it is
// served, too.
func TestTakenForAnother(t *testing.T) {
	b := NewBook(Config{ID: 1, CallBack: 10 * time.Second}, time.Second)
	ask := func(now time.Duration, c Credit) uint64 {
		return b.Acquire(now, Request{Resource: Resource{Access, 1}, Credit: c})
	}
	ask(time.Second, Make(Span{0, 10, Write})) // is never released
	reader := ask(time.Second, Make(Span{20, 30, Read}))
	writer := ask(2*time.Second, Make(Span{20, 30, Write}))
	first := ask(2*time.Second, Make(Span{0, 5, Write}, Span{20, 30, Write})) // behind the writer
	ask(3*time.Second, Make(Span{5, 10, Write}))                              // calls back at once
	for _, id := range []uint64{reader, writer} {
		if err := b.Release(4*time.Second, id, Version{}); err != nil {
			t.Fatal(err)
		}
	}
	for now := 5 * time.Second; now < 20*time.Second; now += time.Second {
		b.Tick(now)
	}
	_, events := b.Take()
	for _, e := range events {
		if e.Kind == Granted && e.Request == first {
			return
		}
	}
	t.Errorf("it waits for ever: %v", events)
}
