package creditengine

import (
	"errors"
	"time"

	"github.com/mpool-go/mpool/credit"
)

func leaseEnds(b *bench) {
	x, y := b.open(), b.open()
	h := b.acquire(x, request(credit.Write, 0, 10, anyhow))
	cached := b.acquire(x, request(credit.Read, 20, 30, anyhow))
	b.release(cached)
	waiting := b.begin(y, request(credit.Write, 0, 30, anyhow))
	await(b, "the call-back", h.Wanted())
	b.rig.Cut(1000)
	next := await(b, "the credit", waiting)
	if b.rig.CallBack > b.rig.Lease && h.Valid() {
		b.t.Error("two holders by their own clocks")
	}
	if err := b.check(h); !errors.Is(err, credit.ErrStale) {
		b.t.Errorf("work of who was silent: %v", err)
	}
	await(b, "the loss", h.Lost())
	b.rig.Mend(1000)
	b.release(next)
	b.release(b.acquire(x, request(credit.Write, 0, 30, anyhow)))
}

func renewed(b *bench) {
	x := b.open()
	h := b.acquire(x, request(credit.Write, 0, 10, anyhow))
	for range 20 {
		<-time.After(b.rig.Lease / 4)
		if !h.Valid() || b.check(h) != nil {
			b.t.Fatalf("a lease that is renewed: valid %v, work %v", h.Valid(), b.check(h))
		}
	}
	b.release(h)
}

func silence(b *bench) {
	x := b.open()
	h := b.acquire(x, request(credit.Write, 0, 10, anyhow))
	b.rig.Cut(1000)
	<-time.After(b.rig.Lease / 4)
	b.rig.Mend(1000)
	<-time.After(2 * b.rig.Lease)
	if !h.Valid() || b.check(h) != nil {
		b.t.Errorf("after a short silence: valid %v, work %v", h.Valid(), b.check(h))
	}
	b.release(h)
}

func deathInLease(b *bench) {
	x, y := b.open(), b.open()
	h := b.acquire(x, request(credit.Write, 0, 10, anyhow))
	b.rig.Cut(1000) // nobody hears of its end
	x.Abandon()
	next := b.acquire(y, request(credit.Write, 0, 10, anyhow))
	if err := b.check(h); !errors.Is(err, credit.ErrStale) {
		b.t.Errorf("work of the dead: %v", err)
	}
	b.release(next)
}
