package credit

import (
	"testing"
	"time"
)

// proves G42: to call back a cached credit costs the same however many have it.
// Allocations are counted, which do not depend on the machine as time does.
func TestRevokeIsLinear(t *testing.T) {
	few, many := revoke(t, 100), revoke(t, 800)
	t.Logf("allocations for each reader: %.1f of 100, %.1f of 800", few, many)
	if many > 2*few {
		t.Errorf("%.1f allocations for each of 100 readers, %.1f for each of 800", few, many)
	}
}

// revoke has n readers acquire, release and keep a credit and a writer call it
// back, and returns how many allocations that cost for each of them.
func revoke(t *testing.T, n int) float64 {
	t.Helper()
	r := Resource{Access, 1}
	read, write := Make(Span{0, 10, Read}), Make(Span{0, 10, Write})
	root := NewBook(Config{ID: 1, CallBack: DefaultCallBack}, time.Second)
	books := map[OwnerID]*Book{1: root}
	granted := 0
	// run carries messages until there are none
	run := func(b *Book) {
		for list := []*Book{b}; len(list) > 0; list = list[1:] {
			messages, events := list[0].Take()
			for _, e := range events {
				if e.Kind == Granted {
					granted++
				}
			}
			for _, m := range messages {
				books[m.To].Receive(time.Second, m)
				list = append(list, books[m.To])
			}
		}
	}
	for id := OwnerID(2); id < OwnerID(2+n); id++ {
		books[id] = NewBook(Config{ID: id, Creditor: 1}, time.Second)
		run(books[id])
	}
	return testing.AllocsPerRun(1, func() {
		for id := OwnerID(2); id < OwnerID(2+n); id++ {
			hold := books[id].Acquire(time.Second, Request{Resource: r, Credit: read, Flags: MayBorrow})
			run(books[id])
			if err := books[id].Release(time.Second, hold, Version{}); err != nil {
				t.Fatal(err)
			}
		}
		granted = 0
		hold := root.Acquire(time.Second, Request{Resource: r, Credit: write, Flags: MayRevoke})
		if run(root); granted != 1 {
			t.Fatalf("%d grants to the writer", granted)
		}
		if err := root.Release(time.Second, hold, Version{}); err != nil {
			t.Fatal(err)
		}
	}) / float64(n)
}
