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
		c, p := s.open(CreditOptions{})
		const n = 40 // fewer than are sent before their time
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
		out := &c.current.Load().out
		out.mu.Lock() // so that they are to be sent at one time, or two
		for _, id := range ids {
			p.GiveBackCredit(id)
		}
		out.mu.Unlock()
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

// proves G6, G41: a daemon that lends a handle nothing says why to who asks, and serves
// what needs no credit; it is asked again, less and less often, and when it lends, the
// connection has credits as if it always had.
func TestCreditsRefused(t *testing.T) {
	s := newLender(t, 0)
	s.put(firstID, contents(1000, 1))
	s.noRoom = &api.Error{
		Code: api.EAGAIN, Detail: "no room", Refusal: &api.Refusal{Class: "memory", Owner: "session:1", Used: 2, Asked: 1, Limit: 2},
	}
	c, p := s.open(CreditOptions{Bytes: 1 << 20})
	l := c.current.Load()
	start := time.Now()
	hellos := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.hellos
	}
	asked := 0
	for hellos() < 3 || asked < 100 {
		_, err := p.AcquireCredit(t.Context(), firstID, CreditRequest{Modes: CreditRead})
		e, _ := errors.AsType[*api.Error](err)
		if !errors.Is(err, api.EAGAIN) || e.Refusal == nil || e.Refusal.Owner != "session:1" {
			t.Fatalf("a credit of a daemon that has no room: %v", err)
		}
		m, err := p.Mblock(t.Context(), firstID)
		if err == nil {
			err = m.Put()
		}
		if err != nil {
			t.Fatal(err)
		}
		asked++
	}
	took := time.Since(start)
	least := time.Duration(0) // that so many take
	for i := range hellos() - 1 {
		least += firstRefused << i
	}
	if took < least {
		t.Errorf("%d times in %v it said hello, at least %v are between", hellos(), took, least)
	}
	if st := c.CreditStats(); int(st.Refused) < 2 {
		t.Errorf("counted %+v", st)
	}
	s.mu.Lock()
	s.noRoom = nil
	s.mu.Unlock()
	h, err := p.AcquireCredit(t.Context(), firstID, CreditRequest{Modes: CreditRead})
	for errors.Is(err, api.EAGAIN) {
		pause(t.Context(), time.Millisecond)
		h, err = p.AcquireCredit(t.Context(), firstID, CreditRequest{Modes: CreditRead})
	}
	if err != nil || !h.Valid() || c.current.Load() != l {
		t.Fatalf("a credit of a daemon that has room again: %v", err)
	}
	if err := h.Release(); err != nil {
		t.Error(err)
	}
	if h, err = p.AcquireCredit(t.Context(), firstID, CreditRequest{Modes: CreditRead, Local: true}); err != nil {
		t.Errorf("it is not cached: %v", err)
	} else if err := h.Release(); err != nil {
		t.Error(err)
	}
}
