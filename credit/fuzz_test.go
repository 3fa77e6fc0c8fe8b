package credit

import (
	"testing"
	"time"
)

// FuzzReceive gives a lender and a borrower whatever messages there may be. They
// may not panic, and what they say of themselves stays true.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{1, 1, 0, 0, 0, 0, 0, 0, 7, 1, 1, 0, 3, 0, 9, 1})
	f.Add([]byte("12345678abcdefgh12345678ABCDEFGH00000000"))
	f.Fuzz(fuzzOne)
}

func fuzzOne(t *testing.T, data []byte) {
	data = data[:min(len(data), 1024)]
	w := &world{things: map[Resource]*thing{}, byID: map[OwnerID]*node{}}
	root := &node{w: w, id: 1, alive: true, book: NewBook(Config{ID: 1, Lease: time.Second, CallBack: 50}, 0)}
	leaf := &node{w: w, id: 2, alive: true, book: NewBook(Config{ID: 2, Creditor: 1, CallBack: 50}, 0)}
	types := []*Type{nil, Access, Space, Activation, simSpace}
	now := time.Duration(0)
	for len(data) >= 8 {
		d := data[:8]
		data = data[8:]
		now += time.Duration(d[7])
		m := Message{
			Kind: Kind(d[0] % 20), From: OwnerID(3 + d[1]%2), To: 1, Session: uint64(d[1] >> 6), Key: uint64(d[2] % 8),
			Seq: uint64(d[2] >> 4), Ack: uint64(d[3] % 8), Seen: uint64(d[3] >> 5),
			Resource: Resource{types[int(d[4])%len(types)], uint64(d[4] >> 7)}, Request: uint64(d[5] % 8),
			Amount: uint64(d[6]), Least: uint64(d[6] >> 1), Flags: Flags(d[5] >> 5), Within: time.Duration(d[6]) - 5,
			Credit: Credit{{uint64(d[6] & 3), uint64(d[6] >> 2 & 15), Modes(d[5])}}, Group: uint64(d[7] & 1),
			Sent: time.Duration(d[3]), Level: int(d[7]) - 8, Token: Token{uint64(d[2])},
		}
		root.book.Receive(now, m)
		m.From, m.To, m.Session = 1, 2, 1
		leaf.book.Receive(now, m)
		for i, n := range []*node{root, leaf} {
			if m.Resource.Type != nil && d[7]%4 == 0 {
				n.book.Acquire(now, Request{Resource: m.Resource, Credit: m.Credit, Amount: m.Amount, Flags: m.Flags})
			}
			n.book.Take()
			for _, a := range n.book.all() {
				w.balance(n, a.res)
			}
			if w.err != nil {
				t.Fatalf("%d: %v", i, w.err)
			}
		}
	}
}
