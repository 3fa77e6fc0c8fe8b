package server

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/scope"
)

// objects puts committed mblocks without handles.
func (r *rig) objects(n int) []layout.ObjectID {
	r.t.Helper()
	w := r.raw()
	defer w.conn.Close()
	pool := w.openPool()
	ids := make([]layout.ObjectID, n)
	for i := range ids {
		put := &ioctl.MblockPut{Pool: pool, Data: ioctl.InlinePayload([]byte("content"))}
		reply, err := w.ask(ioctl.OpMblockPut, put)
		for errors.Is(err, api.EAGAIN) { // those before have not given back yet what they took of a limit
			time.Sleep(time.Millisecond)
			reply, err = w.ask(ioctl.OpMblockPut, put)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		o := reply.(*ioctl.Opened)
		w.ok(ioctl.OpClose, &ioctl.Target{Handle: o.Handle})
		ids[i] = o.ID
	}
	return ids
}

// proves G1, G6, G47: what is kept of who borrows counts as its memory: for more than a
// limit allows it is refused, and may again when it has given some back. Nothing is left
// of it when it ends, which the rig checks.
func TestCreditsCountAsMemory(t *testing.T) {
	const most = 256 << 10
	r, s := newScopeRig(t, scope.Layer{"session": {scope.Memory: scope.Fixed(sessionBytes + 3*bufferBytes + handleChunk*handleBytes + most)}})
	ids := r.objects(600)
	b := r.borrower()
	name := fmt.Sprintf("session:%d", r.sessionOf(t, b.pool).id)
	tasksOver(t, s) // what asked before has given all back
	before := used(s, name, scope.Memory)
	had := []*credit.Hold{}
	refused := false
	for _, id := range ids {
		h, err := b.owner.Acquire(context.Background(), wish(id, credit.Read, 0))
		if errors.Is(err, credit.ErrLimit) {
			if e, ok := errors.AsType[*credit.Error](err); !ok || e.Limit != nil {
				t.Errorf("who does not know of it is told a limit: %+v", e)
			}
			refused = true
			break
		} else if err != nil {
			t.Fatal(err)
		}
		had = append(had, h)
	}
	took := used(s, name, scope.Memory) - before
	n := int64(len(had))
	if !refused || took > most+3*bufferBytes || took+creditRoom < n*loanBytes || took > n*(loanBytes+2*spanBytes+messageBytes)+creditRoom {
		t.Fatalf("%d loans, refused %v, %d bytes are charged", n, refused, took)
	}
	if !strings.Contains(r.log.String(), "a limit refused a client") || s.m.Refused(scope.Memory) == 0 {
		t.Error("nobody is told which limit it was")
	}
	for _, h := range had {
		if err := h.Release(credit.Version{}); err != nil {
			t.Fatal(err)
		}
		b.owner.GiveBack(h.Resource(), h.Credit())
	}
	until(t, "its memory is given back", func() bool { return used(s, name, scope.Memory) <= before+2*creditRoom })
	b.acquire(ids[0], credit.Read)
	w := r.raw() // another session may have as much
	d := &debtor{t: t, w: w, pool: w.openPool()}
	d.hello()
	b.end()
	w.conn.Close()
	r.residue()
}

// proves G6: whose credits a limit refuses hears which one, whose and of what.
func TestCreditsSayWhichLimit(t *testing.T) {
	const most = 256 << 10
	r, _ := newScopeRig(t, scope.Layer{"session": {scope.Memory: scope.Fixed(sessionBytes + 3*bufferBytes + handleChunk*handleBytes + most)}})
	ids := r.objects(600)
	c, err := client.Dial(t.Context(), client.Options{Socket: r.socket, Credits: &client.CreditOptions{}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := r.open(c)
	until(t, "the session that made the objects has ended", func() bool { return len(r.srv.all()) == 1 })
	name := fmt.Sprintf("session:%d", r.srv.all()[0].id)
	for _, id := range ids {
		h, err := p.(client.Credits).AcquireCredit(t.Context(), id, client.CreditRequest{Modes: client.CreditRead})
		if err == nil {
			defer h.Release()
			continue
		}
		want(t, api.EAGAIN, err)
		e, _ := errors.AsType[*api.Error](err)
		if e == nil || e.Refusal == nil || e.Refusal.Owner != name || e.Refusal.Class != scope.Memory.String() ||
			e.Refusal.Asked <= 0 || e.Refusal.Used+e.Refusal.Asked <= e.Refusal.Limit || !strings.Contains(err.Error(), "to change:") {
			t.Errorf("%v: it does not say that it was %s: %+v", err, name, e.Refusal)
		}
		return
	}
	t.Error("nothing is refused")
}

// proves G6: who may not even say Hello hears which limit it is.
func TestNoRoomForCredits(t *testing.T) {
	r, s := newScopeRig(t, nil)
	w := r.raw()
	d := &debtor{t: t, w: w, pool: w.openPool()}
	if err := s.Set(fmt.Sprintf("session:%d", r.sessionOf(t, d.pool).id), scope.Limits{scope.Memory: scope.Fixed(1)}); err != nil {
		t.Fatal(err)
	}
	d.raw(credit.Message{Kind: credit.Hello, Session: 1})
	_, err := d.next()
	want(t, api.EAGAIN, err)
	if err == nil || !strings.Contains(err.Error(), "session:") {
		t.Errorf("the scope is not named: %v", err)
	}
	w.conn.Close()
	r.residue()
}

// Many handles of a session borrow, each from its Hello on; one too many hears how many may,
// and may when another was closed.
func TestManyHandlesBorrow(t *testing.T) {
	r := newRig(t)
	id := r.object(layout.KindMblock)
	w := r.rawDial()
	w.ok(ioctl.OpHello, &ioctl.Hello{MinVersion: 1, MaxVersion: 1, Features: ioctl.Features})
	list := make([]*debtor, maxLinks)
	for i := range list {
		list[i] = &debtor{t: t, w: w, pool: w.openPool()}
		list[i].hello()
		list[i].send(credit.Message{Kind: credit.Borrow, Request: 1, Flags: credit.MayBorrow, Resource: objectOf(id), Credit: wholeOf(credit.Read)})
		if m, err := list[i].next(); err != nil || m.Kind != credit.Grant {
			t.Fatalf("handle %d: %v, %v", i+1, m, err)
		}
	}
	more := &debtor{t: t, w: w, pool: w.openPool()}
	more.raw(credit.Message{Kind: credit.Hello, Session: 1})
	_, err := more.next()
	want(t, api.EAGAIN, err)
	if e, _ := errors.AsType[*api.Error](err); e == nil || e.Refusal == nil || e.Refusal.Limit != maxLinks {
		t.Errorf("it does not say how many may: %v", err)
	}
	w.ok(ioctl.OpClose, &ioctl.Target{Handle: list[7].pool})
	more.hello()
	w.conn.Close()
	r.residue()
}

// proves G42: a call-back of more spans than a message has comes in several, and ends
// nobody's session.
func TestLongCallBack(t *testing.T) {
	r := newRig(t)
	id := r.object(layout.KindMblock)
	a, b := r.borrower(), r.borrower()
	holds := []*credit.Hold{}
	for part := range uint64(3) {
		q := wish(id, credit.Read, 0)
		q.Credit = nil
		for i := range uint64(1000) {
			first := 2 * (1000*part + i)
			q.Credit = append(q.Credit, credit.Span{First: first, End: first + 1, Modes: credit.Read})
		}
		h, err := a.owner.Acquire(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		holds = append(holds, h)
	}
	got := b.waits(context.Background(), r.creditor(), id, credit.Write)
	for _, h := range holds {
		<-h.Wanted()
		if !h.Valid() {
			t.Fatal("it is lost")
		}
		if err := h.Release(credit.Version{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	if _, err := a.find(id); !errors.Is(err, api.EBUSY) {
		t.Errorf("its session has ended, or it may read: %v", err)
	}
	a.end()
	b.end()
	r.residue()
}

// proves G47: when a message cannot be sent nothing more is, and one goroutine ends the
// session.
func TestFailedSend(t *testing.T) {
	r := newRig(t)
	b := r.borrower()
	b.acquire(r.object(layout.KindMblock), credit.Read)
	s := r.sessionOf(t, b.pool)
	c := r.creditor()
	c.leaf.Lock()
	l := c.links[firstLink+1]
	c.leaf.Unlock()
	s.srv.dying.mu.Lock() // the session's end waits for it
	_ = s.conn.CloseWrite()
	for range 100 {
		l.Deliver(credit.Message{Kind: credit.Recall, Resource: objectOf(1), Credit: wholeOf(credit.Read)})
	}
	l.mu.Lock()
	if !l.ended || len(l.queue) > 0 || !s.failing.Load() {
		t.Errorf("ended %v, %d wait, somebody ends it: %v", l.ended, len(l.queue), s.failing.Load())
	}
	l.mu.Unlock()
	buf := make([]byte, 1<<20)
	n := strings.Count(string(buf[:runtime.Stack(buf, true)]), "failLocked.func1")
	s.srv.dying.mu.Unlock()
	if n > 1 {
		t.Errorf("%d goroutines end it", n)
	}
	b.end()
	r.residue()
}
