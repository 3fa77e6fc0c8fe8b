package server

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// Sessions are spread over the loops, and their rings served while others come
// and go.
func TestRingManySessions(t *testing.T) {
	eachLoopKind(t, func(t *testing.T, change func(*Options)) {
		const sessions, loops = 12, 3
		r := newLoopRig(t, change, func(o *Options) { o.Loops = loops })
		var all sync.WaitGroup
		clients := make([]*ringClient, sessions)
		for i := range clients {
			clients[i] = r.ringDial(8)
		}
		v := r.srv.Snapshot().Loops
		if len(v) != loops {
			t.Fatalf("%d loops, want %d", len(v), loops)
		}
		for i, l := range v {
			if l.Sessions != sessions/loops {
				t.Errorf("loop %d has %d sessions", i, l.Sessions)
			}
		}
		for i, w := range clients {
			all.Go(func() {
				p := random(uint64(i), 64<<10)
				h := w.stored(p)
				for n := range 40 {
					if n%20 == 19 {
						w.ok(ioctl.OpRingClose, &ioctl.RingClose{Ring: w.ring})
						w.ring, w.c = w.newRing(0, 8)
					}
					off := n % 16 * 4096
					w.do(w.desc(ioctl.OpMblockRead, h, int64(off), 0, 4096))
					if !bytes.Equal(w.mem[:4096], p[off:][:4096]) {
						t.Error("other bytes")
					}
				}
				w.conn.Close()
			})
		}
		all.Wait()
		until(t, "the sessions are gone", func() bool { return len(r.srv.all()) == 0 })
		for i, l := range r.srv.Snapshot().Loops {
			if l.Sessions != 0 || l.Rings != 0 || l.Registered != 0 || l.Plain != 0 {
				t.Errorf("loop %d: %+v", i, l)
			}
		}
	})
}

// Sessions that do nothing cost nothing: no loop wakes for them, also while
// another one is served.
func TestRingIdleSessions(t *testing.T) {
	r := newLoopRig(t, func(o *Options) { o.Loops = 1 })
	for range 100 {
		r.idleRing()
	}
	w := r.ringDial(8)
	h := w.stored(random(1, 4096))
	w.do(w.desc(ioctl.OpMblockRead, h, 0, 0, 4096))
	wakeups := func() uint64 { return r.srv.Snapshot().Loops[0].Wakeups }
	until(t, "the loop sleeps on", func() bool {
		before := wakeups()
		time.Sleep(300 * time.Millisecond)
		return wakeups() == before
	})
	const reads = 100
	before := wakeups()
	for range reads {
		w.do(w.desc(ioctl.OpMblockRead, h, 0, 0, 4096))
	}
	if n := wakeups() - before; n > 4*reads {
		t.Errorf("the loop woke %d times for %d reads", n, reads)
	}
}

// A ring that is full, of descriptors and of completions that its client does not
// take, loses nothing.
func TestRingFull(t *testing.T) {
	r := newLoopRig(t)
	w := r.ringDial(4)
	h := w.stored(random(1, 4096))
	const n = 200
	put := make(map[uint64]bool)
	for i := 0; i < n; {
		d := w.desc(ioctl.OpMblockRead, h, 0, 0, 4096)
		if w.c.Put(d) {
			put[d.Tag] = true
			i++
			w.c.Bell()
			continue
		}
		w.tag--
		x := w.next()
		if !put[x.Tag] {
			t.Fatalf("%+v twice, or never asked for", x)
		}
		delete(put, x.Tag)
	}
	for len(put) > 0 {
		delete(put, w.next().Tag)
	}
}

// A ring's close is answered when all that was taken is; nothing is taken after
// it, and its memory can be a ring again.
func TestRingClose(t *testing.T) {
	r, g := newGateRig(t)
	w := r.ringDial(16)
	h := w.stored(random(1, 4096))
	g.hold(readsAndWrites)
	var tags []uint64
	for range 5 {
		d := w.desc(ioctl.OpMblockRead, h, 0, 0, 4096)
		tags = append(tags, d.Tag)
		w.put(d)
	}
	g.heldAtLeast(t, 5)
	w.tag++
	w.send(ioctl.Header{Op: ioctl.OpRingClose, Tag: w.tag}, &ioctl.RingClose{Ring: w.ring})
	closing := w.tag
	w.ok(ioctl.OpVersion, &ioctl.Empty{}) // the close is not answered yet
	g.open()
	for range tags {
		w.next()
	}
	if _, err := w.answer(ioctl.OpRingClose, closing); err != nil {
		t.Fatal(err)
	}
	w.c.Put(w.desc(ioctl.OpMblockRead, h, 0, 0, 4096))
	w.c.Bell()
	w.ok(ioctl.OpVersion, &ioctl.Empty{})
	if w.c.Ready() {
		t.Error("a closed ring is served")
	}
	w.ring, w.c = w.newRing(0, 16)
	w.do(w.desc(ioctl.OpMblockRead, h, 0, 0, 4096))
	for i := 1; i < ioctl.MaxRings; i++ {
		w.newRing(1<<20+uint32(i)*8192, 16)
	}
	_, err := w.ask(ioctl.OpRing, &ioctl.RingAsk{Version: ring.Version, Arena: w.arena, Offset: 2 << 20, Entries: 16})
	want(t, api.EAGAIN, err)
	w.ok(ioctl.OpRingClose, &ioctl.RingClose{Ring: 3})
	if n, _ := w.newRing(2<<20, 16); n != 3 {
		t.Errorf("ring %d, want 3", n)
	}
}

// A daemon that stops answers what it has taken.
func TestRingShutdown(t *testing.T) {
	r, g := newGateRig(t)
	w := r.ringDial(128)
	h := w.stored(random(1, 4096))
	g.hold(readsAndWrites)
	for range 100 {
		w.put(w.desc(ioctl.OpMblockRead, h, 0, 0, 4096))
	}
	g.heldAtLeast(t, driveOps)
	until(t, "all are taken", func() bool { return w.word(wordTaken).Load() == w.word(wordSubmitted).Load() })
	ctx, cancel := context.WithTimeout(context.Background(), inVain)
	defer cancel()
	ended := make(chan error)
	go func() { ended <- r.srv.Shutdown(ctx) }()
	until(t, "it is stopping", func() bool {
		r.srv.mu.Lock()
		defer r.srv.mu.Unlock()
		return r.srv.stopping
	})
	g.open()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for range 100 {
		w.next()
	}
}

// Where the kernel registers no memory, one line of the log says so, and where
// there are no loops, clients are told.
func TestRingUnregistered(t *testing.T) {
	r := newLoopRig(t, func(o *Options) { o.Loops, o.loopTest.noRegister = 1, true })
	for i := range 3 {
		w := r.ringDial(8)
		h := w.stored(random(1, 4096))
		w.do(w.desc(ioctl.OpMblockRead, h, 0, 0, 4096))
		until(t, "the arena is known", func() bool { return r.srv.Snapshot().Loops[0].Plain == int64(i+1) })
	}
	if n := strings.Count(r.log.String(), "arenas are not registered"); n != 1 {
		t.Errorf("%d lines in the log, want 1", n)
	}
	r = newLoopRig(t)
	w := r.ringDial(8)
	h := w.stored(random(1, 4096))
	w.do(w.desc(ioctl.OpMblockRead, h, 0, 0, 4096))
	until(t, "the arena is registered", func() bool { return r.srv.Snapshot().Loops[0].Registered == 1 })
	w.do(w.desc(ioctl.OpMblockRead, h, 0, 0, 4096))

	r = newLoopRig(t, func(o *Options) { o.Loops = -1 })
	none := &ringClient{raw: r.raw(), r: r}
	none.arena, none.all, _ = none.raw.arena(1 << 20)
	none.ok(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: none.arena})
	_, err := none.ask(ioctl.OpRing, &ioctl.RingAsk{Version: ring.Version, Arena: none.arena, Entries: 16})
	want(t, api.ENOTSUP, err)
}

// What the Reserver refuses is EAGAIN, on rings as on the socket, and what it
// gives it gets back (the rig sees to that).
func TestRingReserves(t *testing.T) {
	eachLoopKind(t, func(t *testing.T, change func(*Options)) {
		r := newLoopRig(t, change)
		w := r.ringDial(8)
		h := w.stored(random(1, 6<<20))
		for _, what := range []Resource{Requests, IOBytes} {
			r.meter.allow(what, 0)
			want(t, api.EAGAIN, w.fails(w.desc(ioctl.OpMblockRead, h, 0, 0, 5<<20)))
			if what == Requests {
				want(t, api.EAGAIN, w.fails(w.desc(ioctl.OpMblockRead, h, 0, 0, 4096)))
			}
			r.meter.allow(what, 1<<30)
		}
		w.do(w.desc(ioctl.OpMblockRead, h, 0, 0, 5<<20))
	})
}
