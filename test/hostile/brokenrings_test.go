package hostile

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
	"github.com/mpool-go/mpool/test/daemon"
)

// proves S43: a ring that a client broke ends its session, with the reason, and
// nobody else's; the daemon serves the next one.
func TestBrokenRings(t *testing.T) {
	s := newSiege(t)
	a := testAttacker(t, s, 2)
	s.warmUp(a)
	s.remember()
	for name, spoil := range map[string]func(st *stage){
		"submitted":    func(st *stage) { st.r.word(submittedAt).Add(65) },
		"backwards":    func(st *stage) { st.r.word(submittedAt).Add(^uint32(0)) },
		"far":          func(st *stage) { st.r.word(submittedAt).Add(1 << 31) },
		"seen":         func(st *stage) { st.r.word(seenAt).Add(1); st.r.ask(st.proper()) },
		"unseen":       func(st *stage) { st.r.word(seenAt).Add(^uint32(64)); st.r.ask(st.proper()) },
		"operation":    func(st *stage) { st.r.ask(&ring.Descriptor{Op: uint16(ioctl.OpObjectDelete), Handle: uint64(st.read)}) },
		"no operation": func(st *stage) { st.r.ask(&ring.Descriptor{Op: 9999}) },
		"reserved": func(st *stage) {
			st.r.slot(st.r.put)[7].Store(1)
			st.r.put++
			st.r.word(submittedAt).Store(st.r.put)
		},
		"flags": func(st *stage) {
			d := st.proper()
			d.Flags = 0x80
			st.r.ask(d)
		},
	} {
		st := a.stage(64)
		if st == nil {
			t.Fatalf("%s: no session with a ring", name)
		}
		good := a.stage(64)
		if good == nil {
			t.Fatalf("%s: no other session", name)
		}
		spoil(st)
		st.r.word(bellAt).Store(0)
		st.r.wake()
		err := st.last()
		if !errors.Is(err, api.EPROTO) {
			t.Errorf("%s: the session ends with %v; want EPROTO", name, err)
		}
		if !good.work(64) {
			t.Errorf("%s: another session has ended", name)
		}
		st.close()
		good.close()
	}
	s.sweep(1 << 20) // all that there is
	s.recovered()
	c, err := client.Dial(context.Background(), client.Options{Socket: s.d.Socket, Reconnect: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// last reads what is on the socket to its end and returns the last error.
func (st *stage) last() (err error) {
	_ = st.w.Conn.SetDeadline(time.Now().Add(daemon.Patience)) // then Receive fails
	for {
		h, body, rerr := st.w.Receive()
		if rerr != nil {
			return err
		}
		if _, aerr := daemon.Answer(h, body); aerr != nil {
			err = aerr
		}
	}
}

// proves S31 S43: a descriptor with a handle that is stale, of another kind,
// another session's or was never given, or with a window that is not the
// session's, gets an error on the socket, does nothing, and the session goes on.
func TestRingHandles(t *testing.T) {
	s := newSiege(t)
	a := testAttacker(t, s, 3)
	st, other := a.stage(64), testAttacker(t, s, 4).stage(64)
	if st == nil || other == nil {
		t.Fatal("no sessions with rings")
	}
	defer st.close()
	defer other.close()
	stale := st.give(ioctl.OpObjectGet, &ioctl.Target{Handle: st.read})
	if _, err := a.ask(st.w, ioctl.OpClose, &ioctl.Target{Handle: stale}); err != nil {
		t.Fatal(err)
	}
	kinds := map[ioctl.Op]ioctl.Handle{
		ioctl.OpMblockRead: st.read, ioctl.OpMblockWrite: st.fresh, ioctl.OpAppend: st.app, ioctl.OpSync: st.app,
		ioctl.OpMDCAppend: st.mdc, ioctl.OpMDCSync: st.mdc, ioctl.OpMblockAlloc: st.pool, ioctl.OpMblockPut: st.pool,
		ioctl.OpObjectCommit: st.read,
	}
	ofMblock := map[ioctl.Op]bool{ioctl.OpMblockRead: true, ioctl.OpMblockWrite: true, ioctl.OpObjectCommit: true}
	bare := func(op ioctl.Op) bool {
		return op == ioctl.OpSync || op == ioctl.OpMDCSync || op == ioctl.OpMblockAlloc || op == ioctl.OpObjectCommit
	}
	good := func(op ioctl.Op) *ring.Descriptor {
		st.tag++
		d := &ring.Descriptor{Op: uint16(op), Tag: st.tag, Handle: uint64(kinds[op])}
		if !bare(op) {
			d.Arena, d.Window, d.Length = st.r.arena, st.r.data(), 4096
		}
		if op == ioctl.OpMblockWrite {
			d.Offset = 4096
		}
		return d
	}
	for op, h := range kinds {
		for what, bad := range map[string]ioctl.Handle{
			"none": 0, "a stale one": stale, "the highest": 1<<64 - 1, "another session's": other.read, "another's log": other.app,
			"the pool's": st.pool, "the next of its slot": h + 1<<32,
		} {
			if bad == h {
				continue
			}
			d := good(op)
			d.Handle = uint64(bad)
			if err := st.failure(d); !errors.Is(err, api.EBADF) {
				t.Errorf("%v with %s: %v; want EBADF", op, what, err)
			}
		}
		for o, h := range kinds {
			if h == kinds[op] || ofMblock[op] && ofMblock[o] {
				continue
			}
			d := good(op)
			d.Handle = uint64(h)
			if err := st.failure(d); !errors.Is(err, api.EBADF) {
				t.Errorf("%v with a handle for %v: %v; want EBADF", op, o, err)
			}
		}
		if bare(op) {
			continue
		}
		for what, change := range map[string]func(d *ring.Descriptor){
			"an arena that is not there": func(d *ring.Descriptor) { d.Arena = 7 },
			"a misaligned window":        func(d *ring.Descriptor) { d.Window += 512 },
			"a window behind the end":    func(d *ring.Descriptor) { d.Window = ringArena },
			"a window over the end":      func(d *ring.Descriptor) { d.Window, d.Length = ringArena-4096, 4097 },
			"a window that wraps":        func(d *ring.Descriptor) { d.Window, d.Length = 1<<32-4096, 8192 },
		} {
			d := good(op)
			change(d)
			if err := st.failure(d); !errors.Is(err, api.EINVAL) {
				t.Errorf("%v with %s: %v; want EINVAL", op, what, err)
			}
		}
	}
	// What was refused has changed nothing: the objects are as they were made.
	reply, err := a.ask(st.w, ioctl.OpObjectInfo, &ioctl.Target{Handle: st.fresh})
	if m, ok := reply.(*ioctl.ObjectReply); err != nil || !ok || m.Info.Length != 0 {
		t.Errorf("the mblock that was to be written is %+v, %v", reply, err)
	}
	if !other.work(64) || !st.work(64) {
		t.Error("a session has ended")
	}
}

func (st *stage) give(op ioctl.Op, m ioctl.Message) ioctl.Handle { return st.a.give(st.w, op, m) }

// failure has a descriptor that should fail done and returns its error; nil if
// it did not fail.
func (st *stage) failure(d *ring.Descriptor) error {
	_ = st.w.Conn.SetDeadline(time.Now().Add(daemon.Patience)) // then Receive fails
	ended := st.r.word(endedAt).Load()
	if !st.r.ask(d) {
		return errors.New("the ring is full")
	}
	h, body, err := st.w.Receive()
	if err != nil {
		return err
	}
	if h.Tag != d.Tag || h.Op != ioctl.Op(d.Op) {
		return fmt.Errorf("an answer to %v of tag %d; asked %v of %d", h.Op, h.Tag, d.Op, d.Tag)
	}
	if st.r.word(endedAt).Load() != ended {
		return errors.New("a completion as well")
	}
	_, err = daemon.Answer(h, body)
	return err
}
