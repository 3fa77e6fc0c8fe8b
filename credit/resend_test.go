package credit

import (
	"testing"
	"time"
)

// What was lost of many messages, and all behind it with it, is sent again as soon as what
// was sent again before is acknowledged, and not so many at each retry: 20,000 resources
// that are given back at once, and lost by who carries them, are with the creditor one
// retry later. What is said meanwhile comes behind them.
func TestManyAreLost(t *testing.T) {
	const resources = 20_000
	root := NewBook(Config{ID: 1, MaxSpans: 2 * resources, Ack: 100 * time.Millisecond}, 0)
	leaf := NewBook(Config{ID: 2, Creditor: 1, Retry: time.Second, Ack: 100 * time.Millisecond}, 0)
	now, sent := time.Duration(0), 0
	// carry carries what both say until they say nothing, without time; up to so many of the
	// leaf's.
	carry := func(most int) {
		for busy := true; busy; {
			busy = false
			for _, ends := range [][2]*Book{{leaf, root}, {root, leaf}} {
				messages, _ := ends[0].Take()
				for _, m := range messages {
					if ends[0] == leaf {
						if sent++; most == 0 {
							continue
						}
						most--
					}
					ends[1].Receive(now, m)
					busy = true
				}
			}
		}
	}
	resource := func(i int) Resource { return Resource{Access, uint64(i + 1)} }
	carry(1)
	for i := range resources {
		id := leaf.Acquire(now, Request{Resource: resource(i), Credit: Access.All(), Flags: MayBorrow})
		carry(100)
		if err := leaf.Release(now, id, Version{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range resources {
		leaf.GiveBack(now, resource(i), Access.All())
	}
	carry(100)
	if n := len(root.accounts); n < resources-100 {
		t.Fatalf("%d of %d are lent", n, resources)
	}
	now += time.Second
	sent = 0
	leaf.Tick(now)
	leaf.Acquire(now, Request{Resource: resource(resources), Credit: Access.All(), Flags: MayBorrow})
	carry(2 * resources)
	if len(root.accounts) != 1 || root.accounts[resource(resources)] == nil {
		t.Errorf("%d are lent, and what was asked for behind them: %v", len(root.accounts), root.accounts[resource(resources)] != nil)
	}
	if most := resources + resources/10; sent > most {
		t.Errorf("it took %d messages, at most %d", sent, most)
	}
}

// What is kept for a creditor that does not hear is bounded, however often somebody asks and
// gives up. When it hears, it lends again.
func TestDeafCreditor(t *testing.T) {
	b := newBorrower(Config{MaxUnacked: 16})
	all := Credit{{0, 10, Write}}
	for n := 0; ; n++ {
		id, _, e := b.acquire(time.Second, all)
		if len(e) == 1 && e[0].Code == ErrLimit {
			break
		}
		b.Cancel(time.Second, id)
		if _, e := b.Take(); len(e) != 1 || e[0].Code != ErrCanceled {
			t.Fatalf("%+v", e)
		}
		if n > 1000 {
			t.Fatal("it may ask for ever")
		}
	}
	if n := len(b.up.link.unacked); n > unheardMost*16+1 {
		t.Errorf("%d messages are kept", n)
	}
	b.hears(time.Second, Message{Kind: Ack, Ack: b.up.link.sent})
	if _, m, e := b.acquire(time.Second, all); find(m, Borrow) == nil {
		t.Errorf("it does not ask again: %+v, %+v", m, e)
	}
}
