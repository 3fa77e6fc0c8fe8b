package credits

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/test/daemon"
)

// No bytes within credit messages harm the daemon, or others' credits.
func TestHostile(t *testing.T) {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("-credits.seed=%d", n)
	rng := rand.New(rand.NewPCG(n, 0))
	b := newBench(t, "")
	id := b.mblock()
	honest, err := dialWire(b.d.Socket, poolName)
	if err != nil {
		t.Fatal(err)
	}
	defer honest.end()
	h, err := honest.acquire(ctx, id, credit.Write, 0, 100, 0)
	if err != nil {
		t.Fatal(err)
	}
	few := func(most uint64) uint64 { // of some field
		if rng.IntN(16) == 0 {
			return rng.Uint64()
		}
		return rng.Uint64N(most)
	}
	for range 8 {
		w, err := daemon.Greeted(b.d.Socket)
		if err != nil {
			t.Fatal(err)
		}
		pool, err := w.OpenPool(poolName)
		if err != nil {
			t.Fatal(err)
		}
		hello := credit.Message{Kind: credit.Hello, Session: 1}
		if err := w.Send(ioctl.Header{Op: ioctl.OpCredit, Tag: 1}, &ioctl.CreditMessage{Pool: pool, Message: hello}); err != nil {
			t.Fatal(err)
		}
		_, body, err := w.Receive()
		if err != nil {
			t.Fatal(err)
		}
		var welcome ioctl.CreditMessage
		if err := ioctl.Decode(&welcome, body); err != nil || welcome.Message.Kind != credit.Welcome {
			t.Fatalf("%v, %v", welcome, err)
		}
		for seq := range uint64(300) {
			first := few(200)
			m := credit.Message{
				Kind: credit.Kind(1 + rng.IntN(18)), Session: 1, Key: welcome.Message.Key, Seq: seq + 1, Ack: few(seq + 1), Seen: few(seq + 1),
				Resource: credit.Resource{Type: []*credit.Type{credit.Access, credit.Access, credit.Space, credit.Activation}[rng.IntN(4)], ID: few(1) + uint64(id)},
				Request:  few(20), Amount: few(3) / 2, Least: few(3) / 2, Flags: credit.Flags(rng.IntN(8)), Code: credit.Code(rng.IntN(11)),
				Token: credit.Token{few(100)}, Version: credit.Version{few(9)},
			}
			if rng.IntN(4) > 0 {
				m.Kind = []credit.Kind{credit.Borrow, credit.Return, credit.Kept, credit.Withdraw}[rng.IntN(4)]
				m.Credit = credit.Make(credit.Span{First: first, End: first + 1 + few(9)%1000, Modes: credit.Modes(1 + rng.IntN(255))})
			}
			if w.Send(ioctl.Header{Op: ioctl.OpCredit, Tag: 1}, &ioctl.CreditMessage{Pool: pool, Message: m}) != nil {
				break // it was ended
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !h.Valid() {
		t.Error("who did nothing has lost its credit")
	}
	if err := h.Release(credit.Version{}); err != nil {
		t.Error(err)
	}
	honest.end()
	b.residue()
}
