package server

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// proves G44: a commit that was under way when its session was fenced is told to whoever
// has the credit now: until it is known what became of it, it is asked in vain, and
// nobody finds that there is no object and an object later.
func TestFenceDuringCommit(t *testing.T) {
	for _, ringed := range []bool{false, true} {
		t.Run(map[bool]string{false: "socket", true: "ring"}[ringed], func(t *testing.T) {
			r, g := newGateRig(t, calledBackIn(10*time.Millisecond))
			b := r.borrower()
			w := r.ringDial(16)
			h := w.alloc(4096)
			w.do(w.desc(ioctl.OpMblockWrite, h, 0, 0, 4096))
			id := must[*activePool](t)(r.srv.pools.get("data")).onlyOf(r.sessionOf(t, w.pool))
			g.hold(func(o *bdev.Op) bool { return o.Code == bdev.OpFlush })
			if ringed {
				w.put(w.desc(ioctl.OpObjectCommit, h, 0, 0, 0))
			} else {
				w.send(ioctl.Header{Op: ioctl.OpObjectCommit, Tag: 999}, &ioctl.Target{Handle: h})
			}
			g.heldAtLeast(t, 1)
			hold := b.acquire(id, credit.Write) // its claim was taken
			found := make(chan error, 1)
			go func() {
				_, err := b.find(id)
				found <- err
			}()
			until(t, "the request waits", func() bool { return r.sessionOf(t, b.pool).info().InFlight == 1 })
			select {
			case err := <-found:
				t.Errorf("it is said what became of it before it is known: %v", err)
			case <-time.After(20 * time.Millisecond): // would be too early, not too late
			}
			g.open()
			if err := <-found; err != nil {
				t.Errorf("it was committed, and is not found: %v", err)
			}
			if err := hold.Release(credit.Version{}); err != nil {
				t.Error(err)
			}
			b.end()
			w.conn.Close()
			r.residue()
		})
	}
}

// proves G44, G47: a commit that was under way when its session died is told to whoever has
// the credit now; who has none does not wait for it.
func TestDeathDuringCommit(t *testing.T) {
	r, g := newGateRig(t)
	b, o := r.borrower(), r.borrower()
	w := r.ringDial(16)
	h := w.alloc(4096)
	w.do(w.desc(ioctl.OpMblockWrite, h, 0, 0, 4096))
	id := must[*activePool](t)(r.srv.pools.get("data")).onlyOf(r.sessionOf(t, w.pool))
	g.hold(func(o *bdev.Op) bool { return o.Code == bdev.OpFlush })
	w.put(w.desc(ioctl.OpObjectCommit, h, 0, 0, 0))
	g.heldAtLeast(t, 1)
	w.conn.Close()
	hold := b.acquire(id, credit.Write)
	_, err := o.find(id)
	want(t, api.ENOENT, err)
	found := make(chan error, 1)
	go func() {
		_, err := b.find(id)
		found <- err
	}()
	until(t, "the request waits", func() bool { return r.sessionOf(t, b.pool).info().InFlight == 1 })
	g.open()
	if err := <-found; err != nil {
		t.Errorf("it was committed, and is not found: %v", err)
	}
	if err := hold.Release(credit.Version{}); err != nil {
		t.Error(err)
	}
	b.end()
	o.end()
	r.residue()
}

// proves G44: a token of hand-over is good for nothing when its giver was fenced, and
// what was not committed is aborted.
func TestFencedGiver(t *testing.T) {
	r := newRig(t, calledBackIn(10*time.Millisecond))
	a, b, o := r.borrower(), r.borrower(), r.borrower()
	made := a.ok(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: a.pool, Options: api.AllocOptions{Capacity: 4096}}).(*ioctl.Opened)
	token := a.ok(ioctl.OpGrant, &ioctl.Grant{Object: made.Handle, TTL: time.Minute}).(*ioctl.Granted).Token
	hold := b.acquire(made.ID, credit.Write)
	_, err := b.find(made.ID) // waits until it is known what became of it
	want(t, api.ENOENT, err)
	r.eventually("the object is aborted", func(p *fakePool) bool { return p.objects[made.ID] == nil })
	_, err = o.ask(ioctl.OpAccept, &ioctl.Accept{Pool: o.pool, Token: token})
	want(t, api.ENOENT, err)
	if err := hold.Release(credit.Version{}); err != nil {
		t.Error(err)
	}
	for _, x := range []*borrower{a, b, o} {
		x.end()
	}
	r.residue()
}

// proves G44, G49: what others have credits on is not handed over, and is the giver's
// still; without them it is the taker's, who claims it.
func TestHandOverOfWhatIsLent(t *testing.T) {
	r := newRig(t)
	a, b, o := r.borrower(), r.borrower(), r.borrower()
	made := a.ok(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: a.pool, Options: api.AllocOptions{Capacity: 4096}}).(*ioctl.Opened)
	token := a.ok(ioctl.OpGrant, &ioctl.Grant{Object: made.Handle, TTL: time.Minute}).(*ioctl.Granted).Token
	hold := a.acquire(made.ID, credit.Write)
	_, err := o.ask(ioctl.OpAccept, &ioctl.Accept{Pool: o.pool, Token: token})
	want(t, api.EBUSY, err)
	a.ok(ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: made.Handle, Total: 3, Data: ioctl.InlinePayload([]byte("abc"))})
	if err := hold.Release(credit.Version{}); err != nil {
		t.Error(err)
	}
	a.owner.GiveBack(hold.Resource(), hold.Credit())
	c := r.creditor()
	until(t, "it is given back", func() bool { return len(c.root.Loans(hold.Resource())) == 0 })
	ctx, stop := context.WithCancel(t.Context())
	gone := b.waits(ctx, c, made.ID, credit.Write)
	_, err = o.ask(ioctl.OpAccept, &ioctl.Accept{Pool: o.pool, Token: token})
	want(t, api.EBUSY, err)
	stop()
	if err := <-gone; err == nil {
		t.Error("granted")
	}
	until(t, "nobody waits", func() bool { return waiting(c, made.ID) == 0 })
	taken := o.ok(ioctl.OpAccept, &ioctl.Accept{Pool: o.pool, Token: token}).(*ioctl.Opened)
	o.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: taken.Handle})
	for _, x := range []*borrower{a, b, o} {
		x.end()
	}
	r.residue()
}

// proves G49: what the daemon itself has begun to delete goes to nobody before that has
// ended, however long it takes.
func TestDeleteIsNotFenced(t *testing.T) {
	r := newRig(t, calledBackIn(10*time.Millisecond))
	id := r.object(layout.KindMblock)
	a, b := r.borrower(), r.borrower()
	if err := b.acquire(id, credit.Read).Release(credit.Version{}); err != nil {
		t.Fatal(err)
	}
	h := must[ioctl.Handle](t)(a.find(id))
	begun, goOn := make(chan struct{}), make(chan struct{})
	r.b.hook(func(_ context.Context, op string) error {
		if op == "object delete" || op == "mblock delete" || op == "delete" {
			close(begun)
			<-goOn
		}
		return nil
	})
	_, call := a.begin(ioctl.OpObjectDelete, &ioctl.Target{Handle: h})
	<-begun
	ctx, stop := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer stop()
	if h, err := b.owner.Acquire(ctx, wish(id, credit.Read, 0)); !errors.Is(err, credit.ErrTimeout) {
		t.Errorf("a credit on what is being deleted: %v, %v", h, err)
	}
	close(goOn)
	if err := <-call; err != nil {
		t.Error(err)
	}
	a.end()
	b.end()
	r.residue()
}

// proves G47: who dies while a delete of its waits for others deletes nothing.
func TestDeathOfWhoDeletes(t *testing.T) {
	r := newRig(t)
	id := r.object(layout.KindMblock)
	a, b := r.borrower(), r.borrower()
	if err := b.acquire(id, credit.Read).Release(credit.Version{}); err != nil {
		t.Fatal(err)
	}
	b.stop() // it does not say whether it holds it
	h := must[ioctl.Handle](t)(a.find(id))
	a.begin(ioctl.OpObjectDelete, &ioctl.Target{Handle: h})
	c := r.creditor()
	until(t, "it waits", func() bool { return waiting(c, id) == 1 })
	a.end()
	until(t, "nobody waits", func() bool { return waiting(c, id) == 0 })
	b.resume()
	if _, err := b.find(id); err != nil {
		t.Errorf("it is gone: %v", err)
	}
	b.end()
	r.residue()
}

// proves G47: nothing of a debtor's is left that broke its bounds, although its session
// goes on.
func TestEvicted(t *testing.T) {
	r := newRig(t)
	id, idle, other := r.object(layout.KindMblock), r.object(layout.KindMblock), r.object(layout.KindMblock)
	holder := r.borrower()
	must[ioctl.Handle](t)(holder.find(other))
	w := r.raw()
	d := &debtor{t: t, w: w, pool: w.openPool()}
	d.hello()
	d.send(credit.Message{Kind: credit.Borrow, Request: 1, Resource: objectOf(id), Credit: wholeOf(credit.Read | credit.Append | credit.Write)})
	d.send(credit.Message{Kind: credit.Borrow, Request: 3, Resource: objectOf(idle), Credit: wholeOf(credit.Read)})
	d.send(credit.Message{Kind: credit.Borrow, Request: 2, Resource: objectOf(other), Credit: wholeOf(credit.Write), Flags: credit.MayRevoke})
	c := r.creditor()
	until(t, "it waits", func() bool { return waiting(c, other) == 1 })
	// It gives back every other byte, more than any debtor may have pieces.
	for first := uint64(0); ; {
		var part credit.Credit
		for range ioctl.MaxSpans {
			part = append(part, credit.Span{First: first, End: first + 1, Modes: credit.Read | credit.Append | credit.Write})
			first += 2
		}
		d.send(credit.Message{Kind: credit.Return, Resource: objectOf(id), Credit: part})
		if _, debtors := c.root.Size(); debtors == 1 { // the holder
			break
		}
		if first > 1<<20 {
			t.Fatal("it may have any number of pieces")
		}
	}
	until(t, "nothing of it is watched", func() bool { return c.watching.Load() == 0 })
	holder.end()
	w.conn.Close()
	r.residue()
}

// debtor speaks as an owner of credits does, or does not.
type debtor struct {
	t    *testing.T
	w    *raw
	pool ioctl.Handle
	key  uint64
	sent uint64
}

func (d *debtor) hello() {
	d.t.Helper()
	d.raw(credit.Message{Kind: credit.Hello, Session: 1})
	m, err := d.next()
	if err != nil || m.Kind != credit.Welcome {
		d.t.Fatalf("%v, %v", m, err)
	}
	d.key = m.Key
}

func (d *debtor) raw(m credit.Message) {
	d.t.Helper()
	d.w.send(ioctl.Header{Op: ioctl.OpCredit, Tag: 1}, &ioctl.CreditMessage{Pool: d.pool, Message: m})
}

// send sends a numbered message and acknowledges nothing.
func (d *debtor) send(m credit.Message) {
	d.t.Helper()
	d.sent++
	m.Session, m.Key, m.Seq = 1, d.key, d.sent
	if m.Kind == credit.Return {
		m.Ack, m.Seen = 1, 1 // it had the first grant
	}
	d.raw(m)
}

// next returns the next credit message that comes.
func (d *debtor) next() (credit.Message, error) {
	h, body, err := d.w.recv()
	if err != nil {
		return credit.Message{}, err
	}
	if h.Op != ioctl.OpCredit {
		d.t.Fatalf("%v comes", h.Op)
	}
	if h.Flags&ioctl.FlagError != 0 {
		var e ioctl.Error
		if err := ioctl.Decode(&e, body); err != nil {
			d.t.Fatal(err)
		}
		return credit.Message{}, e.API()
	}
	var m ioctl.CreditMessage
	err = ioctl.Decode(&m, body)
	return m.Message, err
}
