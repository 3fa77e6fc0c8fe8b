package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/mpool"
)

// meter is a Reserver that counts what is reserved, and refuses more than it
// is told to.
type meter struct {
	unlimited // greets and lets in everybody

	t *testing.T

	mu    sync.Mutex
	used  map[*Client]map[Resource]int64
	peak  map[Resource]int64 // of one client
	calls map[Resource]int
	limit map[Resource]int64
	asked map[string]mpool.Priority // by pool
	admit error
}

func newMeter(t *testing.T) *meter {
	return &meter{
		t: t, used: map[*Client]map[Resource]int64{}, peak: map[Resource]int64{}, calls: map[Resource]int{},
		limit: map[Resource]int64{}, asked: map[string]mpool.Priority{},
	}
}

func (m *meter) Reserve(c *Client, what Resource, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.Session == 0 || c.PID == 0 || n <= 0 {
		m.t.Errorf("%d of %v reserved for %+v", n, what, *c)
	}
	u := m.used[c]
	if limit, ok := m.limit[what]; ok && u[what]+n > limit {
		return fmt.Errorf("%d are used, %d asked for, the limit is %d", u[what], n, limit)
	}
	if u == nil {
		u = map[Resource]int64{}
		m.used[c] = u
	}
	u[what] += n
	m.peak[what] = max(m.peak[what], u[what])
	m.calls[what]++
	return nil
}

func (m *meter) Release(c *Client, what Resource, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.used[c]
	if n <= 0 || u[what] < n {
		m.t.Errorf("%d of %v released of %d for %+v", n, what, u[what], *c)
		return
	}
	if u[what] -= n; u[what] == 0 {
		delete(u, what)
	}
	if len(u) == 0 {
		delete(m.used, c)
	}
}

func (m *meter) Admit(_ context.Context, pool string, p mpool.Priority) (func(), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked[pool] = p
	return func() {}, m.admit
}

// allow changes what the meter allows; below 0: everything.
func (m *meter) allow(what Resource, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.limit[what] = n; n < 0 {
		delete(m.limit, what)
	}
}

func (m *meter) usedOf(what Resource) (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range m.used {
		n += u[what]
	}
	return n
}

// checkEmpty checks that nothing is reserved. The server has stopped.
func (m *meter) checkEmpty() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c, u := range m.used {
		m.t.Errorf("reserved after the end of %+v: %v", c, u)
	}
}

// However a session ends, all that was reserved for it comes back, once: the
// meter of every test checks the latter.
//
// proves S33
func TestAllComesBack(t *testing.T) {
	r := newRig(t)
	busy := func(w *raw) {
		handles := w.one()
		id, _, _ := w.arena(1 << 20)
		w.ok(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: id})
		w.arena(1 << 20) // which is not mapped
		last := w.events(ioctl.EventNext{}).Last
		for i := range 10 {
			w.send(ioctl.Header{Op: ioctl.OpMblockWrite, Tag: uint64(5000 + i)}, &ioctl.MblockWrite{
				Mblock: handles[kindMblock], Data: ioctl.Payload{Window: ioctl.Window{Arena: id, Length: 1 << 16}},
			})
			w.send(ioctl.Header{Op: ioctl.OpMblockRead, Tag: uint64(6000 + i)}, &ioctl.MblockRead{
				Mblock: handles[kindMblock], Into: ioctl.Window{Length: 4096},
			})
		}
		w.send(ioctl.Header{Op: ioctl.OpEventNext, Tag: 7000}, &ioctl.EventNext{After: last, Wait: ioctl.MaxEventWait})
	}
	ends := []func(){
		func() {
			w := r.raw()
			busy(w)
			w.conn.Close()
		},
		func() {
			w := r.raw()
			busy(w)
			if _, err := w.conn.Write([]byte("garbage")); err != nil {
				t.Error(err)
			}
		},
		func() {
			c := r.child("holder")
			c.expect("ready")
			c.kill()
		},
		func() {
			c := r.child("busy")
			c.expect("ready")
			c.kill()
		},
	}
	for i, end := range ends {
		end()
		r.nextReaped(i + 1)
		for stop := time.Now().Add(inVain); r.meter.usedOf(Connections) != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(stop) {
				t.Fatalf("session %d: not everything has come back", i+1)
			}
		}
		r.meter.checkEmpty()
	}
	busy(r.raw()) // which ends with the daemon
}

// Whatever is refused is EAGAIN that names it, nothing of it was done or is
// kept, and the session goes on.
//
// proves S41
func TestRefused(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	pool := w.openPool()
	b := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 20}})
	id, _, _ := w.arena(1 << 20)
	w.ok(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: id})
	small := &ioctl.MblockWrite{Mblock: b, Data: ioctl.InlinePayload(make([]byte, 100))}
	large := &ioctl.MblockWrite{Mblock: b, Data: ioctl.Payload{Window: ioctl.Window{Arena: id, Length: 1 << 19}}}
	inline := &ioctl.MblockRead{Mblock: b, Into: ioctl.Window{Length: 100}}
	for _, c := range []struct {
		what  Resource
		limit int64
		op    ioctl.Op
		m     ioctl.Message
	}{
		// First: later it has a chunk.
		{IOBytes, 0, ioctl.OpMblockWrite, small},
		{IOBytes, 0, ioctl.OpMblockWrite, large},
		{IOBytes, 0, ioctl.OpMblockRead, inline},
		{Requests, 0, ioctl.OpVersion, &ioctl.Empty{}},
		{MessageBytes, sessionBytes, ioctl.OpVersion, &ioctl.Empty{}},
		{MessageBytes, sessionBytes + bufferBytes, ioctl.OpMblockWrite, small},
		{MessageBytes, sessionBytes + bufferBytes, ioctl.OpMblockRead, inline},
		{ArenaBytes, 1<<20 + 4096, ioctl.OpArena, &ioctl.ArenaAsk{Size: 8192}},
		{Descriptors, sessionDescriptors + 1, ioctl.OpArena, &ioctl.ArenaAsk{Size: 8192}},
	} {
		// The last request may not have been counted out yet.
		for end := time.Now().Add(inVain); r.meter.usedOf(Requests) != 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		r.meter.allow(c.what, c.limit)
		_, err := w.ask(c.op, c.m)
		want(t, api.EAGAIN, err)
		if err != nil && !strings.Contains(err.Error(), c.what.String()) {
			t.Errorf("%v refused of %v: %v", c.op, c.what, err)
		}
		r.meter.allow(c.what, -1)
	}
	if i, ok := w.ok(ioctl.OpObjectInfo, &ioctl.Target{Handle: b}).(*ioctl.ObjectReply); !ok || i.Info.Length != 0 {
		t.Errorf("%+v", i)
	}
	// The numbers of arenas that were refused are free.
	for range DefaultLimits().Arenas - 1 {
		w.arena(8192)
	}
	w.ok(ioctl.OpMblockWrite, large)
	w.ok(ioctl.OpMblockRead, inline)
	for _, what := range []Resource{Connections, Descriptors, MessageBytes} {
		r.meter.allow(what, 0)
		w := r.rawDial()
		w.send(ioctl.Header{Op: ioctl.OpHello}, &ioctl.Hello{MinVersion: 1, MaxVersion: 1})
		_, err := w.answer(ioctl.OpHello, 0)
		if !errors.Is(err, api.EAGAIN) || !strings.Contains(err.Error(), what.String()) {
			t.Errorf("a session without %v: %v", what, err)
		}
		r.meter.allow(what, -1)
	}
	w.ok(ioctl.OpVersion, &ioctl.Empty{})
}

// I/O is reserved in chunks, and what a session keeps of it while it does none
// is bounded.
func TestChunks(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	pool := w.openPool()
	id, _, _ := w.arena(32 << 20)
	w.ok(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: id})
	b := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 64 << 20}})
	write := func(n uint32) {
		t.Helper()
		w.ok(ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: b, Data: ioctl.Payload{Window: ioctl.Window{Arena: id, Length: n}}})
	}
	for range 1000 {
		write(4096)
	}
	r.meter.mu.Lock()
	if n := r.meter.calls[IOBytes]; n > 4 {
		t.Errorf("1000 writes one after another reserved %d times", n)
	}
	r.meter.mu.Unlock()
	write(32 << 20)
	w.ok(ioctl.OpVersion, &ioctl.Empty{})
	for end := time.Now().Add(inVain); r.meter.usedOf(IOBytes) > ioKeep; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("an idle session keeps %d bytes of I/O", r.meter.usedOf(IOBytes))
		}
	}
	if p := r.meter.peak[IOBytes]; p < 32<<20 || p > 33<<20+ioKeep {
		t.Errorf("at most %d bytes were reserved", p)
	}
}

// On the way of data nothing is allocated to reserve.
func TestReserveAllocatesNothing(t *testing.T) {
	s := &session{srv: &Server{reserver: unlimited{}}}
	r := &request{s: s}
	if n := testing.AllocsPerRun(1000, func() {
		if err := errors.Join(r.admit(true), r.takeIO(4096)); err != nil {
			t.Error(err)
		}
		r.dismiss()
		r.io = 0
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkReserve(b *testing.B) {
	r := &request{s: &session{srv: &Server{reserver: unlimited{}}}}
	b.ReportAllocs()
	for b.Loop() {
		if r.admit(true) != nil || r.takeIO(4096) != nil {
			b.Fatal("refused")
		}
		r.dismiss()
		r.io = 0
	}
}

// The engine's background steps are admitted by the Reserver, with the pool's
// name and the step's priority.
func TestAdmit(t *testing.T) {
	r := newRig(t)
	r.raw()
	p := r.pool()
	if _, err := p.watch.Admit(context.Background(), mpool.PriorityHigh); err != nil {
		t.Error(err)
	}
	if err := r.srv.RenamePool(context.Background(), "data", "renamed"); err != nil {
		t.Fatal(err)
	}
	r.meter.mu.Lock()
	r.meter.admit = errWhy
	r.meter.mu.Unlock()
	if _, err := p.watch.Admit(context.Background(), mpool.PriorityLow); !errors.Is(err, errWhy) {
		t.Error(err)
	}
	if len(r.meter.asked) != 2 || r.meter.asked["data"] != mpool.PriorityHigh || r.meter.asked["renamed"] != mpool.PriorityLow {
		t.Errorf("asked %v", r.meter.asked)
	}
}
