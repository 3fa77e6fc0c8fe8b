package client

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// To a daemon that has not said that it knows how messages of credits go together, each
// goes alone, in the form of the first version; to one that has they go together.
func TestCreditsPacked(t *testing.T) {
	for _, lacks := range []uint64{0, ioctl.FeaturePacked, ioctl.Features} {
		s := newLender(t, 0)
		s.lacks = lacks
		_, p := s.open(CreditOptions{})
		const n = 200
		var all sync.WaitGroup
		ids := make([]layout.ObjectID, n)
		for i := range ids {
			ids[i] = layout.NewObjectID(layout.KindMblock, uint64(i+1))
			all.Go(func() {
				h, err := p.AcquireCredit(t.Context(), ids[i], CreditRequest{Modes: CreditWrite})
				if err == nil {
					err = h.Release()
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for _, id := range ids {
			p.GiveBackCredit(id)
		}
		for _, id := range ids { // which is said before the daemon can have it again
			h, err := s.delete(t.Context(), id, 0)
			if err == nil {
				err = h.Release(credit.Version{})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		s.mu.Lock()
		packs := s.packs
		s.mu.Unlock()
		if agreed := lacks&ioctl.FeaturePacked == 0; (packs > 1) != agreed {
			t.Errorf("features %x: up to %d messages went together", ioctl.Features&^lacks, packs)
		}
	}
}

// A daemon that sends several together which was not agreed is not listened to any more.
func TestCreditsPackedUnasked(t *testing.T) {
	s := newLender(t, 0)
	s.lacks = ioctl.FeaturePacked
	c, p := s.open(CreditOptions{})
	if _, err := p.AcquireCredit(t.Context(), firstID, CreditRequest{Modes: CreditRead}); err != nil {
		t.Fatal(err)
	}
	l := c.current.Load()
	h, _ := p.have(l)
	s.mu.Lock()
	for x := range s.conns {
		m := credit.Message{Kind: credit.Ack, Session: 1}
		x.send(ioctl.Header{Op: ioctl.OpCredit, Flags: ioctl.FlagReply}, &ioctl.CreditMessage{Pool: h, Message: m, More: []credit.Message{m}})
	}
	s.mu.Unlock()
	c.broken(l)
	if err := l.why(); !errors.Is(err, api.EPROTO) {
		t.Errorf("the connection is over for %v", err)
	}
}

// What waits to be sent of credits is bounded, and what is said beyond that is lost and said
// again: as soon as the daemon has heard what was said again before.
func TestCreditsLostAreSaidAgain(t *testing.T) {
	s := newLender(t, 0)
	c, p := s.open(CreditOptions{})
	const n = 2000 // which would take two minutes with so many at each retry
	ids := make([]layout.ObjectID, n)
	for i := range ids {
		ids[i] = layout.NewObjectID(layout.KindMblock, uint64(i+1))
		h, err := p.AcquireCredit(t.Context(), ids[i], CreditRequest{Modes: CreditRead})
		if err == nil {
			err = h.Release()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	out := &c.current.Load().out
	full := func(n int) {
		out.mu.Lock()
		defer out.mu.Unlock()
		out.credits += n
	}
	sent := c.CreditStats().Messages
	full(maxCredits) // as if the daemon did not read
	for _, id := range ids {
		p.GiveBackCredit(id)
	}
	for c.CreditStats().Messages < sent+n {
		pause(t.Context(), time.Millisecond)
	}
	full(-maxCredits)
	for end := time.Now().Add(time.Minute); ; pause(t.Context(), time.Millisecond) {
		left, _ := s.root.Size()
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d are lent still", left, n)
		}
	}
}
