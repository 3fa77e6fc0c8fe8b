package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/mpool"
)

// events asks for the events after a number.
func (w *raw) events(m ioctl.EventNext) *ioctl.EventsReply {
	w.t.Helper()
	reply, ok := w.ok(ioctl.OpEventNext, &m).(*ioctl.EventsReply)
	if !ok {
		w.t.Fatal("no events")
	}
	return reply
}

func everything(*ioctl.Event) bool { return true }

// The ring keeps the last events, as many as there may be sessions, numbers them
// without a gap, and says how many it has let go.
func TestEventRing(t *testing.T) {
	for sessions, most := range map[int]int{1: minEvents, 10_000: 10_000, 1 << 20: maxEvents} {
		t.Run(fmt.Sprint(sessions), func(t *testing.T) { testEventRing(t, sessions, most) })
	}
}

func testEventRing(t *testing.T, sessions, most int) {
	t.Helper()
	var r eventRing
	r.init(sessions)
	start := time.Unix(1000, 0)
	const more = 100
	for i := range most + more {
		r.add(ioctl.Event{Time: start.Add(time.Duration(i) * time.Second), PID: int32(i + 1)})
	}
	next := uint64(more + 1)
	for after, missed := uint64(0), uint64(0); ; {
		reply, _ := r.page(after, time.Time{}, everything)
		if missed += reply.Missed; missed != more {
			t.Fatalf("missed %d of %d", missed, more)
		}
		for _, e := range reply.Events {
			if e.Seq != next || e.PID != int32(next) {
				t.Fatalf("event %d of pid %d, want %d", e.Seq, e.PID, next)
			}
			next++
		}
		if after = reply.Last; len(reply.Events) == 0 {
			break
		}
	}
	if next != uint64(most+more+1) {
		t.Errorf("the last event was %d", next-1)
	}
	// None of those that were let go is as young as was asked for.
	reply, _ := r.page(0, start.Add(time.Duration(most)*time.Second), everything)
	if reply.Missed != 0 || len(reply.Events) == 0 || reply.Events[0].Seq != uint64(most+1) {
		t.Errorf("missed %d, first %+v", reply.Missed, reply.Events[0])
	}
	// A number of an earlier daemon's.
	reply, _ = r.page(1<<40, time.Time{}, everything)
	if len(reply.Events) == 0 || reply.Events[0].Seq != more+1 {
		t.Errorf("%+v", reply.Events)
	}
	// What may not be seen is passed over.
	reply, _ = r.page(0, time.Time{}, func(e *ioctl.Event) bool { return e.PID == int32(most) })
	if len(reply.Events) != 1 || reply.Last != uint64(most+more) {
		t.Errorf("%d events, last %d", len(reply.Events), reply.Last)
	}
}

// Of equal events of a pool one is told in a while, and of different ones not
// too many.
func TestEventFeed(t *testing.T) {
	r := newRig(t)
	p := r.pool()
	tell := func(e mpool.Event) { p.watch.Event(e) }
	w := r.raw()
	last := w.events(ioctl.EventNext{}).Last
	for i := range 50 {
		tell(mpool.Event{Type: mpool.EventCorruption, Object: mblockID(7), Device: "/dev/a", Offset: int64(i), Err: errWhy})
	}
	tell(mpool.Event{Type: mpool.EventPoisoned, Object: mblockID(8), Err: errWhy})
	tell(mpool.Event{Type: mpool.EventDriveFailed, Device: "/dev/a", Err: errWhy})
	tell(mpool.Event{Type: mpool.EventReadOnly})
	tell(mpool.Event{Type: mpool.EventCommitCut, Object: mblockID(9)})
	got := w.events(ioctl.EventNext{After: last}).Events
	if len(got) != 5 {
		t.Fatalf("%d events: %+v", len(got), got)
	}
	for i, typ := range []ioctl.EventType{
		ioctl.EventCorruption, ioctl.EventPoisoned, ioctl.EventDriveFailed, ioctl.EventPoolReadOnly,
		ioctl.EventCommitCut,
	} {
		if e := got[i]; e.Type != typ || e.Pool != "data" || e.Time.IsZero() {
			t.Errorf("event %d: %+v, want %v", i, e, typ)
		}
	}
	if e := got[0]; e.Object != mblockID(7) || e.Device != "/dev/a" || e.Offset != 0 || e.Text != errWhy.Error() {
		t.Errorf("%+v", e)
	}
	if !strings.Contains(got[1].Text, "49 more") {
		t.Errorf("%q does not say how many were held back", got[1].Text)
	}
	for i := range 10 * feedMost {
		tell(mpool.Event{Type: mpool.EventCorruption, Object: mblockID(uint64(1000 + i))})
	}
	n := 0
	for after := last; ; {
		reply := w.events(ioctl.EventNext{After: after})
		if len(reply.Events) == 0 {
			break
		}
		n, after = n+len(reply.Events), reply.Last
	}
	if n != feedMost {
		t.Errorf("%d events in a while, want %d", n, feedMost)
	}
	r.eventually("the log tells", func(*fakePool) bool { return strings.Contains(r.log.String(), "event=pool_read_only") })
}

// Pools tell when they come and go, under the name they have then.
func TestPoolEvents(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	c := r.dial()
	must[api.CreateResult](t)(c.CreatePool(ctx, "a", []string{"/dev/a"}, api.CreateOptions{}))
	if err := c.RenamePool(ctx, "a", "b"); err != nil {
		t.Fatal(err)
	}
	r.named("a").watch.Event(mpool.Event{Type: mpool.EventReadOnly})
	if err := c.DeactivatePool(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	must[api.PoolInfo](t)(c.ActivatePool(ctx, "uuid of a", nil, api.ActivateOptions{}))
	if err := c.DestroyPool(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range r.raw().events(ioctl.EventNext{}).Events {
		got = append(got, e.Type.String()+" "+e.Pool)
	}
	want := []string{
		"pool_activated data", "pool_activated a", "pool_read_only b", "pool_deactivated b", "pool_activated b",
		"pool_deactivated b",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Everybody who waits for an event gets it, once.
func TestEventFollowers(t *testing.T) {
	r := newRig(t)
	const followers, events = 20, 100
	var wg sync.WaitGroup
	for range followers {
		w := r.raw()
		wg.Go(func() {
			next := uint64(2) // after the pool's activation
			for after := uint64(1); next < 2+events; {
				reply := w.events(ioctl.EventNext{After: after, Wait: 10_000})
				for _, e := range reply.Events {
					if e.Seq != next {
						t.Errorf("event %d, want %d", e.Seq, next)
					}
					next++
				}
				after = reply.Last
			}
		})
	}
	for range events {
		r.srv.tellEvent(ioctl.Event{Type: ioctl.EventOverQuota})
	}
	wg.Wait()
}

// A wait for events ends with its time, its deadline, its cancellation and its
// session, and takes one slot.
//
// proves S46
func TestEventWaitEnds(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	last := w.events(ioctl.EventNext{}).Last
	began := time.Now()
	if reply := w.events(ioctl.EventNext{After: last, Wait: 30}); len(reply.Events) != 0 || reply.Last != last {
		t.Errorf("%+v", reply)
	}
	if took := time.Since(began); took < 30*time.Millisecond {
		t.Errorf("waited %v", took)
	}
	wait := &ioctl.EventNext{After: last, Wait: ioctl.MaxEventWait}
	w.send(ioctl.Header{Op: ioctl.OpEventNext, Tag: 900, Deadline: 20}, wait)
	_, err := w.answer(ioctl.OpEventNext, 900)
	want(t, api.ETIMEDOUT, err)
	w.send(ioctl.Header{Op: ioctl.OpEventNext, Tag: 901}, wait)
	i, ok := w.ok(ioctl.OpClientList, &ioctl.ClientList{}).(*ioctl.ClientsReply)
	if !ok || len(i.Clients) != 1 || i.Clients[0].InFlight != 2 {
		t.Errorf("%+v", i)
	}
	w.send(ioctl.Header{Op: ioctl.OpCancel, Tag: 902}, &ioctl.Cancel{Tag: 901})
	_, err = w.answer(ioctl.OpEventNext, 901)
	want(t, api.ECANCELED, err)
	// With its session, and with the daemon.
	w.send(ioctl.Header{Op: ioctl.OpEventNext, Tag: 903}, wait)
	w.conn.Close()
	if e := r.nextReaped(1); e.Cause != ioctl.CauseClosed || e.PID == 0 || e.Comm == "" {
		t.Errorf("%+v", e)
	}
	w = r.raw()
	w.send(ioctl.Header{Op: ioctl.OpEventNext, Tag: 904}, &ioctl.EventNext{After: last + 1, Wait: ioctl.MaxEventWait})
	began = time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), inVain)
	defer cancel()
	if err := r.srv.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > ioctl.MaxEventWait*time.Millisecond/2 {
		t.Errorf("the daemon took %v to stop", took)
	}
}

// An administrator sees all sessions, their handles and what these are on.
func TestClientsAndHandles(t *testing.T) {
	r := newRig(t)
	w, other := r.raw(), r.raw()
	handles := other.one()
	alloc := &ioctl.Alloc{Pool: handles[kindPool], Options: api.AllocOptions{Capacity: 1}}
	other.opened(ioctl.OpMblockAlloc, alloc)
	id, _, _ := other.arena(1 << 20)
	other.ok(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: id})
	list, ok := w.ok(ioctl.OpClientList, &ioctl.ClientList{}).(*ioctl.ClientsReply)
	if !ok || len(list.Clients) != 2 || list.More {
		t.Fatalf("%+v", list)
	}
	c := list.Clients[1]
	if c.Session != 2 || c.PID == 0 || c.Comm == "" || c.Handles != 8 || c.Uncommitted != 3 || c.Mblocks != 2 ||
		c.InFlight != 0 || c.Requests < 9 || c.Memory < 1<<20 || time.Since(c.Connected) > time.Hour {
		t.Errorf("%+v", c)
	}
	for _, m := range []ioctl.ClientList{{After: 2}, {PID: 1}} {
		if l, ok := w.ok(ioctl.OpClientList, &m).(*ioctl.ClientsReply); !ok || len(l.Clients) != 0 {
			t.Errorf("%+v: %+v", m, l)
		}
	}
	got, ok := w.ok(ioctl.OpHandleList, &ioctl.HandlesAsk{Pool: "data"}).(*ioctl.HandlesReply)
	if !ok || len(got.Handles) != 8 {
		t.Fatalf("%+v", got)
	}
	for i, h := range got.Handles {
		if i > 0 && h.Handle <= got.Handles[i-1].Handle || h.Session != 2 || h.PID != c.PID || h.Pool != "data" {
			t.Errorf("%+v", h)
		}
		if onObject := h.Kind != ioctl.HandlePool && h.Kind != ioctl.HandleList; onObject != (h.Object != 0) ||
			onObject != (h.State != 0) || onObject != (h.Refs != 0) {
			t.Errorf("%+v", h)
		}
	}
	_, err := w.ask(ioctl.OpHandleList, &ioctl.HandlesAsk{Pool: "none"})
	want(t, api.ENOENT, err)
}

// Lists of sessions and handles that are longer than a page come whole.
func TestLongSessionLists(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	var all []*raw
	for range ioctl.ClientsPerPage + 10 {
		all = append(all, r.raw())
	}
	pool := w.openPool()
	for range 2*ioctl.HandlesPerPage + 10 {
		w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1}})
	}
	sessions := map[uint64]bool{}
	for m := (ioctl.ClientList{}); ; {
		reply, ok := w.ok(ioctl.OpClientList, &m).(*ioctl.ClientsReply)
		if !ok {
			t.Fatal("no list")
		}
		for _, c := range reply.Clients {
			sessions[c.Session] = true
			m.After = c.Session
		}
		if !reply.More {
			break
		}
	}
	if len(sessions) != len(all)+1 {
		t.Errorf("%d sessions of %d", len(sessions), len(all)+1)
	}
	handles := map[string]bool{}
	for m := (ioctl.HandlesAsk{}); ; {
		reply, ok := w.ok(ioctl.OpHandleList, &m).(*ioctl.HandlesReply)
		if !ok {
			t.Fatal("no list")
		}
		for _, h := range reply.Handles {
			handles[fmt.Sprint(h.Session, h.Handle)] = true
			m.AfterSession, m.AfterHandle = h.Session, h.Handle
		}
		if !reply.More {
			break
		}
	}
	if len(handles) != 2*ioctl.HandlesPerPage+11 {
		t.Errorf("%d handles", len(handles))
	}
}

// A wait that is too long is a breach.
func TestEventWaitTooLong(t *testing.T) {
	w := newRig(t).raw()
	w.send(ioctl.Header{Op: ioctl.OpEventNext, Tag: 1}, &ioctl.EventNext{Wait: ioctl.MaxEventWait + 1})
	w.ended()
}
