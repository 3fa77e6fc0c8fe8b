package server

import (
	"bytes"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// The words of a ring, by their places; see package ring.
const (
	wordSubmitted = 0x000
	wordTaken     = 0x080
	wordBell      = 0x100
	wordSeen      = 0x200
)

func (w *ringClient) word(at int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&w.all[at]))
}

// A ring whose words cannot be true, or a descriptor that is none, ends the
// session that has it, and no other.
//
// proves S43
func TestRingBreaches(t *testing.T) {
	r := newLoopRig(t, func(o *Options) { o.Loops = 1 })
	other := r.ringDial(8)
	h := other.stored(random(1, 4096))
	for name, f := range map[string]func(w *ringClient){
		"too many submitted": func(w *ringClient) { w.word(wordSubmitted).Store(9) },
		"less submitted":     func(w *ringClient) { w.word(wordSubmitted).Store(^uint32(0)) },
		"seen before it was": func(w *ringClient) {
			w.word(wordSeen).Store(5)
			w.c.Put(w.desc(ioctl.OpMblockRead, 1, 0, 0, 4096))
		},
		"operation without rings": func(w *ringClient) { w.c.Put(w.desc(ioctl.OpObjectDelete, 1, 0, 0, 0)) },
		"no operation":            func(w *ringClient) { w.c.Put(w.desc(0, 1, 0, 0, 0)) },
		"operation past all":      func(w *ringClient) { w.c.Put(w.desc(65535, 1, 0, 0, 0)) },
		"flags": func(w *ringClient) {
			d := w.desc(ioctl.OpMblockRead, 1, 0, 0, 4096)
			d.Flags = 1
			w.c.Put(d)
		},
		"more flags": func(w *ringClient) {
			d := w.desc(ioctl.OpAppend, 1, 0, 0, 4096)
			d.Flags = 3
			w.c.Put(d)
		},
		"data of a sync":   func(w *ringClient) { w.c.Put(w.desc(ioctl.OpSync, 1, 0, 0, 4096)) },
		"offset of a sync": func(w *ringClient) { w.c.Put(w.desc(ioctl.OpMDCSync, 1, 1, 0, 0)) },
		"data in no arena": func(w *ringClient) { w.c.Put(&ring.Descriptor{Op: uint16(ioctl.OpMblockRead), Length: 1}) },
		"reserved bytes":   func(w *ringClient) { w.all[4096+50] = 1; w.c.Put(w.desc(ioctl.OpSync, 1, 0, 0, 0)); w.all[4096+50] = 1 },
		"tag of two (slow)": func(w *ringClient) {
			withoutLanes(w)
			for range 2 { // the first waits in its lane when the second comes
				w.c.Put(&ring.Descriptor{Op: uint16(ioctl.OpMblockRead), Tag: 5, Handle: 1, Arena: w.arena, Window: w.at, Length: 5 << 20})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := r.ringDial(8)
			w.t = t
			if name == "reserved bytes" {
				// The client's Put writes the reserved bytes, too.
				for i := range 8 {
					w.all[4096+64*i+50] = 1
				}
				w.word(wordSubmitted).Store(1)
			} else {
				f(w)
			}
			w.c.Bell()
			w.ended()
		})
	}
	if x := other.do(other.desc(ioctl.OpMblockRead, h, 0, 0, 4096)); x.N != 4096 {
		t.Errorf("%+v", x)
	}
	until(t, "the sessions are gone", func() bool { return len(r.srv.all()) == 1 })
	if v := r.srv.Snapshot().Loops[0]; v.Rings != 1 || v.Sessions != 1 {
		t.Errorf("the loop still has %d rings of %d sessions, want 1 of 1", v.Rings, v.Sessions)
	}
}

// withoutLanes gives the lanes of the youngest session no goroutine until goOn is
// called or the test ends.
func withoutLanes(w *ringClient) (set *ringSet, goOn func()) {
	l := w.r.srv.loops.all()[0]
	sets := make(chan *ringSet)
	l.do(func() {
		set := l.sets[len(l.sets)-1]
		set.turns.running = w.r.srv.limits.Requests
		sets <- set
	})
	set = <-sets
	goOn = sync.OnceFunc(func() {
		l.do(func() {
			set.turns.running = 0
			set.startLanes()
		})
	})
	w.t.Cleanup(goOn)
	return set, goOn
}

// A client that rings for nothing, or keeps the bell from being set, does not
// keep the loop awake; it is told once in the log, and served nevertheless.
//
// proves S43
func TestRingFloodedBell(t *testing.T) {
	for name, flood := range map[string]func(w *ringClient){
		"rings":          func(w *ringClient) { w.c.Bell() },
		"is never 1":     func(w *ringClient) { w.word(wordBell).Store(0) },
		"is something":   func(w *ringClient) { w.word(wordBell).Store(77) },
		"is 1 and rings": func(w *ringClient) { w.word(wordBell).Store(1); w.c.Bell() },
	} {
		t.Run(name, func(t *testing.T) {
			for _, kind := range []string{"io_uring", "no futex wait"} {
				r := newLoopRig(t, loopKinds[kind], func(o *Options) { o.Loops = 1 })
				w := r.ringDial(8)
				h := w.stored(random(1, 4096))
				good := r.ringDial(8)
				g := good.stored(random(2, 4096))
				before := r.srv.Snapshot().Loops[0].Wakeups
				began := time.Now()
				for time.Since(began) < 100*time.Millisecond {
					flood(w)
				}
				// One each millisecond at first, and less after.
				n := r.srv.Snapshot().Loops[0].Wakeups - before
				if took := time.Since(began); n > 50+uint64(took/time.Millisecond) {
					t.Errorf("%s: the loop woke %d times in %v", kind, n, took)
				}
				good.do(good.desc(ioctl.OpMblockRead, g, 0, 0, 4096))
				for i := range 40 {
					good.do(good.desc(ioctl.OpMblockRead, g, 0, 0, 4096))
					if i%2 == 0 {
						flood(w)
					} else if strings.Contains(name, "rings") { // else it has silenced its own bell
						w.do(w.desc(ioctl.OpMblockRead, h, 0, 0, 4096))
					}
				}
				if n := strings.Count(r.log.String(), "rings for nothing"); n > 1 {
					t.Errorf("%d lines in the log", n)
				}
			}
		})
	}
}

// A client that does not read its errors holds up nobody but itself, and cannot
// have more of them than its ring has entries.
//
// proves S43
func TestRingUnreadErrors(t *testing.T) {
	r := newLoopRig(t, func(o *Options) { o.Loops = 1 })
	w := r.ringDial(512)
	good := r.ringDial(8)
	g := good.stored(random(2, 4096))
	put := 0
	for range 200 {
		for w.c.Put(w.desc(ioctl.OpMblockRead, 0, 0, 0, 4096)) {
			put++
		}
		w.c.Bell()
		good.do(good.desc(ioctl.OpMblockRead, g, 0, 0, 4096))
	}
	// What fits into the socket is answered.
	until(t, "the ring is full", func() bool {
		if w.c.Put(w.desc(ioctl.OpMblockRead, 0, 0, 0, 4096)) {
			put++
			w.c.Bell()
			return false
		}
		good.do(good.desc(ioctl.OpMblockRead, g, 0, 0, 4096))
		return !w.c.Put(w.desc(ioctl.OpMblockRead, 0, 0, 0, 4096))
	})
	if put > 3000 {
		t.Errorf("%d errors are under way", put)
	}
	for i := range put {
		h, _, err := w.recv()
		if err != nil || h.Flags&ioctl.FlagError == 0 {
			t.Fatalf("error %d of %d: %+v, %v", i, put, h, err)
		}
	}
}

// What does not match its checksum in the client's memory is read again into the
// daemon's, before anybody is told of corruption: the client may have written to it.
//
// proves S14
// proves S43
func TestRingScribbledRead(t *testing.T) {
	for _, size := range []int{4096, 100 << 10} { // checksums in the record, and in pages
		r, g := newGateRig(t, func(o *Options) { o.Loops = 1 })
		w := r.ringDial(8)
		p := random(1, size)
		h := w.stored(p)
		var spoil atomic.Int32
		g.mu.Lock()
		g.spoil = func(o *bdev.Op) {
			if o.Code == bdev.OpRead && spoil.Load() > 0 {
				spoil.Add(-1)
				o.Buf[7] ^= 1
			}
		}
		g.mu.Unlock()
		spoil.Store(1)
		x := w.do(w.desc(ioctl.OpMblockRead, h, 0, 0, 4096))
		if x.N != 4096 || !bytes.Equal(w.mem[:4096], p[:4096]) {
			t.Errorf("%+v, or other bytes", x)
		}
		corrupt := func() uint64 {
			for _, e := range r.srv.Snapshot().Events {
				if e.Type == ioctl.EventCorruption.String() {
					return e.Count
				}
			}
			t.Fatal("no such event")
			return 0
		}
		if n := corrupt(); n != 0 {
			t.Errorf("%d events of corruption", n)
		}
		if n := r.srv.Snapshot().Loops[0].Rereads; n != 1 {
			t.Errorf("%d rereads, want 1", n)
		}
		spoil.Store(1 << 20) // now it is the drive
		w.mem[0] = 1
		want(t, api.ECORRUPT, w.fails(w.desc(ioctl.OpMblockRead, h, 0, 0, 4096)))
		if bytes.Equal(w.mem[:4096], p[:4096]) {
			t.Error("the right bytes, and an error")
		}
		until(t, "an event tells", func() bool { return corrupt() == 1 })
		spoil.Store(0)
	}
}

// Rings that no loop could wait for are refused, where each takes a thread.
//
// proves S41
func TestRingListenersAreBounded(t *testing.T) {
	r := newLoopRig(t, func(o *Options) { o.Loops, o.loopTest.noWords = 1, true })
	made := 0
	for made < loopEars {
		w := r.idleRing()
		made++
		for i := 1; i < ioctl.MaxRings && made < loopEars; i++ {
			w.newRing(uint32(i*8192), 16)
			made++
		}
	}
	w := &ringClient{raw: r.raw(), r: r}
	w.arena, w.all, _ = w.raw.arena(1 << 20)
	w.ok(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: w.arena})
	_, err := w.ask(ioctl.OpRing, &ioctl.RingAsk{Version: ring.Version, Arena: w.arena, Entries: 16})
	want(t, api.EAGAIN, err)
	until(t, "each ring is listened to", func() bool { return r.srv.Snapshot().Loops[0].Listeners == loopEars })
	for _, s := range r.srv.all() {
		s.end(ioctl.SourceSocket)
	}
	until(t, "nobody listens", func() bool { return r.srv.Snapshot().Loops[0].Listeners == 0 })
}
