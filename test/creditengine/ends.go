package creditengine

import (
	"errors"
	"time"

	"github.com/mpool-go/mpool/credit"
)

func death(b *bench) {
	x, y := b.open(), b.open()
	h := b.acquire(x, request(credit.Write, 0, 10, anyhow))
	waiting := b.begin(y, request(credit.Write, 0, 10, anyhow))
	x.Abandon()
	next := await(b, "the credit of the dead", waiting)
	if err := b.check(h); !errors.Is(err, credit.ErrStale) {
		b.t.Errorf("work of the dead: %v", err)
	}
	b.release(next)
}

func windUp(b *bench) {
	x, y := b.open(), b.open()
	b.release(b.acquire(x, request(credit.Write, 0, 10, anyhow)))
	if err := x.Close(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	b.release(b.acquire(y, request(credit.Write, 0, 10, credit.MayBorrow))) // nothing is to be called back
}

func deathOfCreditor(b *bench) {
	x, y := b.open(), b.open()
	h := b.acquire(x, request(credit.Write, 0, 10, anyhow))
	next := b.rig.Succeed(b.t)
	if b.rig.Lease > 0 && !h.Valid() {
		b.t.Error("lost with its creditor, though its lease has not ended")
	}
	b.reconnect(y, next)
	waiting := b.begin(y, request(credit.Write, 0, 10, anyhow))
	again := await(b, "the credit of the successor", waiting)
	if h.Valid() {
		b.t.Error("two holders by their own clocks")
	}
	await(b, "the loss", h.Lost())
	if err := b.check(h); !errors.Is(err, credit.ErrStale) {
		b.t.Errorf("work under a credit of the dead: %v", err)
	}
	if err := b.check(again); err != nil || again.Token().Compare(h.Token()) <= 0 {
		b.t.Errorf("work under one of its successor: %v; tokens %v and %v", err, h.Token(), again.Token())
	}
	b.reconnect(x, next)
	b.release(again)
	b.release(b.acquire(x, request(credit.Write, 0, 10, anyhow)))
}

func reconnecting(b *bench) {
	x, y := b.open(), b.open()
	h := b.acquire(x, request(credit.Write, 0, 10, anyhow))
	b.rig.Break(1000)
	if b.rig.Lease == 0 {
		await(b, "the loss", h.Lost())
		if _, err := x.Acquire(b.t.Context(), request(credit.Read, 0, 10, anyhow)); !errors.Is(err, credit.ErrNoCreditor) {
			b.t.Errorf("acquire without a creditor: %v", err)
		}
	}
	b.reconnect(x, b.rig.Engine)
	if b.rig.Lease > 0 { // and is renewed by the new connection
		<-time.After(2 * b.rig.Lease)
		if err := b.check(h); err != nil || !h.Valid() {
			b.t.Errorf("connected anew within its lease: valid %v, work %v", h.Valid(), err)
		}
		b.release(h)
	} else if err := b.check(h); !errors.Is(err, credit.ErrStale) {
		b.t.Errorf("work under what the connection had before: %v", err)
	}
	again := b.acquire(x, request(credit.Write, 0, 10, anyhow))
	if err := b.check(again); err != nil {
		b.t.Errorf("work under what was acquired anew: %v", err)
	}
	c := b.begin(y, request(credit.Write, 0, 10, anyhow))
	await(b, "the call-back", again.Wanted()) // comes by the new connection
	b.release(again)
	b.release(await(b, "the credit", c))
}

func idle(b *bench) {
	x := b.open()
	h := b.acquire(x, request(credit.Write, 0, 10, anyhow))
	for range 5 {
		<-time.After(b.rig.CallBack)
		if err := b.check(h); err != nil || !h.Valid() {
			b.t.Fatalf("a credit that nobody wants: %v, valid %v", err, h.Valid())
		}
	}
	b.release(h)
}
