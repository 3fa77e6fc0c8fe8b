package server

import (
	"bytes"
	"context"
	"errors"
	"runtime/pprof"
	"strings"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// info describes the object of a handle.
func (w *ringClient) info(h ioctl.Handle) api.ObjectInfo {
	w.t.Helper()
	return w.ok(ioctl.OpObjectInfo, &ioctl.Target{Handle: h}).(*ioctl.ObjectReply).Info
}

// putDesc makes a descriptor that puts what lies in mem.
func (w *ringClient) putDesc(capacity int64, at, n int) *ring.Descriptor {
	return w.desc(ioctl.OpMblockPut, w.pool, capacity, at, n)
}

// left returns how many objects there are, how many of them are uncommitted, and
// what the daemon remembers of those that are.
func (r *rig) left() (objects, uncommitted, remembered int) {
	r.t.Helper()
	a, err := r.srv.pools.get("data")
	if err != nil {
		r.t.Fatal(err)
	}
	for o, err := range a.pool.Objects(context.Background(), api.Filter{}) {
		if err != nil {
			r.t.Fatal(err)
		}
		objects++
		if o.State != api.StateCommitted {
			uncommitted++
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return objects, uncommitted, len(a.adopters) + len(a.own) + len(a.orphaned) + int(a.orphans.Load())
}

// What a ring allocates, puts, commits and gives up is as what messages do.
//
// proves S10 S12 S30
func TestRingCommits(t *testing.T) {
	eachLoopKind(t, func(t *testing.T, change func(*Options)) {
		r := newLoopRig(t, change)
		w := r.ringDial(16)
		w.alloc(1) // who acts for whom is known from now on
		slow := func() uint64 { return r.srv.Snapshot().Loops[0].Slow }
		p := random(1, 300_000)
		copy(w.mem, p)

		d := w.desc(ioctl.OpMblockAlloc, w.pool, 100_000, 0, 0)
		d.Flags, d.Label = ring.FlagFallback, 77
		x := w.do(d)
		h := ioctl.Handle(x.A)
		i := w.info(h)
		if i.State != api.StateUncommitted || i.Capacity != 100_000 || i.Tag != 77 || i.ID != layout.ObjectID(x.B) ||
			i.Created.UnixMilli() != int64(x.Flags)<<32|int64(x.N) {
			t.Errorf("allocated %+v, as %+v", i, x)
		}
		w.do(w.desc(ioctl.OpMblockWrite, h, 0, 0, 10_000))
		for range 2 { // once more, of one's own
			w.do(w.desc(ioctl.OpObjectCommit, h, 0, 0, 0))
		}
		w.do(w.desc(ioctl.OpClose, h, 0, 0, 0))
		want(t, api.EBADF, w.fails(w.desc(ioctl.OpClose, h, 0, 0, 0)))

		for _, n := range []int{0, 1, 4096, 10_000} {
			at := 8192
			x := w.do(w.putDesc(0, at, n))
			h := ioctl.Handle(x.A)
			if i := w.info(h); i.State != api.StateCommitted || i.Length != int64(n) || i.Capacity != int64(n) || i.Refs != 1 {
				t.Errorf("put %d bytes as %+v", n, i)
			}
			if n > 0 {
				w.do(w.desc(ioctl.OpMblockRead, h, 0, 1<<20, 16384))
				if !bytes.Equal(w.mem[1<<20:][:n], p[at:at+n]) {
					t.Errorf("%d bytes: others were put", n)
				}
			}
			w.do(w.desc(ioctl.OpClose, h, 0, 0, 0))
		}
		if n := slow(); n > 0 {
			t.Errorf("%d went through a lane", n)
		}
		// What has to wait: many blocks, a log, another kind of handle.
		h = ioctl.Handle(w.do(w.putDesc(400_000, 0, len(p))).A)
		if i := w.info(h); i.State != api.StateCommitted || i.Length != int64(len(p)) || i.Capacity != 400_000 {
			t.Errorf("put a large one as %+v", i)
		}
		m := w.opened(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: w.pool, Options: api.AllocOptions{Capacity: 4096}})
		w.do(w.desc(ioctl.OpObjectCommit, m, 0, 0, 0))
		a := w.opened(ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: m})
		w.do(w.desc(ioctl.OpClose, a, 0, 0, 0))
		if n := slow(); n != 3 {
			t.Errorf("%d went through a lane, want 3", n)
		}
		// A commit is of the writes before it in the ring.
		u := w.alloc(1 << 20)
		for i := range 8 {
			w.put(w.desc(ioctl.OpMblockWrite, u, 0, i*32768, 32768))
		}
		w.do2(w.desc(ioctl.OpObjectCommit, u, 0, 0, 0), 8)
		if i := w.info(u); i.State != api.StateCommitted || i.Length != 8*32768 {
			t.Errorf("committed %+v", i)
		}
	})
}

// do2 is do of a descriptor that is behind others, which must succeed too.
func (w *ringClient) do2(d *ring.Descriptor, others int) {
	w.t.Helper()
	w.put(d)
	for range others + 1 {
		w.next()
	}
}

// What a ring is refused leaves nothing, and no handle.
//
// proves S31 S41 S43 S44
func TestRingCommitsRefused(t *testing.T) {
	r := newLoopRig(t, func(o *Options) { o.Limits.Handles = 4 })
	w := r.ringDial(16)
	u := w.alloc(4096)
	with := func(d *ring.Descriptor, change func(d *ring.Descriptor)) *ring.Descriptor {
		change(d)
		return d
	}
	for what, c := range map[string]struct {
		d    *ring.Descriptor
		code api.Code
	}{
		"put too much":         {w.putDesc(9, 0, 10), api.EFBIG},
		"put less than naught": {w.putDesc(-1, 0, 10), api.EINVAL},
		"put into no arena":    {with(w.putDesc(0, 0, 10), func(d *ring.Descriptor) { d.Arena = 9 }), api.EINVAL},
		"put past the arena":   {with(w.putDesc(0, 0, 10), func(d *ring.Descriptor) { d.Window = 1 << 30 }), api.EINVAL},
		"put of no class":      {with(w.putDesc(0, 0, 10), func(d *ring.Descriptor) { d.Class = 1 }), api.ENOENT},
		"put of a wrong class": {with(w.putDesc(0, 0, 10), func(d *ring.Descriptor) { d.Class = 99 }), api.ENOENT},
		"put for nobody":       {with(w.putDesc(0, 0, 10), func(d *ring.Descriptor) { d.Owner = 99 }), api.ENOENT},
		"put into no pool":     {w.desc(ioctl.OpMblockPut, u, 0, 0, 10), api.EBADF},
		"alloc in no pool":     {w.desc(ioctl.OpMblockAlloc, u, 10, 0, 0), api.EBADF},
		"alloc too much":       {w.desc(ioctl.OpMblockAlloc, w.pool, 1<<29, 0, 0), api.ENOSPC},
		"commit a pool":        {w.desc(ioctl.OpObjectCommit, w.pool, 0, 0, 0), api.EBADF},
		"close nothing":        {w.desc(ioctl.OpClose, 5, 0, 0, 0), api.EBADF},
		"close what is in use": {w.desc(ioctl.OpClose, w.pool, 0, 0, 0), api.EBUSY},
	} {
		if err := w.fails(c.d); !errors.Is(err, c.code) {
			t.Errorf("%s: %v, want %v", what, err, c.code)
		}
	}
	if objects, uncommitted, _ := r.left(); objects != 1 || uncommitted != 1 {
		t.Errorf("%d objects are left, %d uncommitted; want the one", objects, uncommitted)
	}
	for range 2 {
		w.do(w.putDesc(0, 0, 10))
	}
	want(t, api.ENOMEM, w.fails(w.putDesc(0, 0, 10)))
	want(t, api.ENOMEM, w.fails(w.desc(ioctl.OpMblockAlloc, w.pool, 10, 0, 0)))
	if objects, uncommitted, _ := r.left(); objects != 3 || uncommitted != 1 {
		t.Errorf("%d objects are left, %d uncommitted; want 3, 1", objects, uncommitted)
	}
}

// Descriptors of these operations with what they do not take end the session.
//
// proves S43
func TestRingCommitsNonsense(t *testing.T) {
	r := newLoopRig(t)
	for what, change := range map[string]func(d *ring.Descriptor){
		"alloc with data":      func(d *ring.Descriptor) { d.Op = uint16(ioctl.OpMblockAlloc) },
		"commit with data":     func(d *ring.Descriptor) { d.Op = uint16(ioctl.OpObjectCommit) },
		"close with data":      func(d *ring.Descriptor) { d.Op = uint16(ioctl.OpClose) },
		"put with sync":        func(d *ring.Descriptor) { d.Flags = ring.FlagSync },
		"put with a high flag": func(d *ring.Descriptor) { d.Flags = 8 },
		"read of a class":      func(d *ring.Descriptor) { d.Op, d.Class = uint16(ioctl.OpMblockRead), 1 },
		"append for an owner":  func(d *ring.Descriptor) { d.Op, d.Owner = uint16(ioctl.OpAppend), 1 },
		"close in a chain": func(d *ring.Descriptor) {
			d.Op, d.Flags, d.Arena, d.Window, d.Length = uint16(ioctl.OpClose), ring.FlagChained, 0, 0, 0
		},
		"read in a chain": func(d *ring.Descriptor) { d.Op, d.Flags = uint16(ioctl.OpMblockRead), ring.FlagChained },
		"commit at an offset": func(d *ring.Descriptor) {
			d.Op, d.Offset, d.Arena, d.Window, d.Length = uint16(ioctl.OpObjectCommit), 1, 0, 0, 0
		},
		"write with a label": func(d *ring.Descriptor) { d.Op, d.Label = uint16(ioctl.OpMblockWrite), 1 },
	} {
		w := r.ringDial(16)
		d := w.putDesc(0, 0, 10)
		change(d)
		w.put(d)
		until(t, what+": the session has ended", func() bool { return len(r.srv.all()) == 0 })
	}
}

// A put whose write fails leaves nothing; so does one whose handle somebody has
// guessed and given up.
//
// proves S11 S40 S43
func TestRingPutFails(t *testing.T) {
	r, g := newGateRig(t)
	w := r.ringDial(16)
	w.do(w.putDesc(0, 0, 10))
	g.mu.Lock()
	g.spoil = func(o *bdev.Op) {
		if o.Code == bdev.OpWrite {
			o.Err = syscall.EIO
		}
	}
	g.mu.Unlock()
	g.hold(readsAndWrites)
	w.put(w.putDesc(0, 0, 4096))
	g.heldAtLeast(t, 1)
	g.mu.Lock()
	held := g.held[0]
	g.held = nil
	g.mu.Unlock()
	held.Complete(syscall.EIO)
	_, err := w.answer(ioctl.OpMblockPut, w.tag)
	want(t, api.EIO, err)
	g.mu.Lock()
	g.spoil = nil
	g.mu.Unlock()
	until(t, "nothing is left", func() bool { n, u, m := r.left(); return n == 1 && u == 0 && m == 0 })
	if s := r.srv.all()[0]; s.table.Len() != 2 {
		t.Errorf("%d handles are left, want the pool's and one", s.table.Len())
	}

	g.hold(readsAndWrites)
	w.put(w.putDesc(0, 0, 4096))
	tag := w.tag
	g.heldAtLeast(t, 1)
	for h, v := range handlesOf(r.srv.all()[0]) {
		if _, ok := v.(*objectRef); ok && w.info(h).State == api.StateUncommitted {
			w.do(w.desc(ioctl.OpClose, h, 0, 0, 0))
			want(t, api.EBADF, w.fails(w.desc(ioctl.OpObjectCommit, h, 0, 0, 0)))
		}
	}
	g.open()
	_, err = w.answer(ioctl.OpMblockPut, tag)
	want(t, api.EBADF, err)
	w.do(w.putDesc(0, 0, 10)) // all goes on
	w.conn.Close()
	until(t, "nothing is left", func() bool { n, u, m := r.left(); return n == 2 && u == 0 && m == 0 })
}

// handlesOf returns a session's handles.
func handlesOf(s *session) map[ioctl.Handle]resource {
	m := make(map[ioctl.Handle]resource)
	s.table.Each(func(h uhandle.Handle, v resource) { m[ioctl.Handle(h)] = v })
	return m
}

// A session ends amid puts and commits: what was not sent to the log is gone, and
// the rest comes through and is nobody's.
//
// proves S7 S33
func TestRingSessionEndsUnderCommit(t *testing.T) {
	for what, c := range map[string]struct {
		held func(o *bdev.Op) bool
		want int // of 8, committed
	}{
		"write": {readsAndWrites, 0},
		"flush": {func(o *bdev.Op) bool { return o.Code == bdev.OpFlush }, 8},
	} {
		for _, verb := range []ioctl.Op{ioctl.OpMblockPut, ioctl.OpObjectCommit} {
			t.Run(what+" "+verb.Name(), func(t *testing.T) {
				r, g := newGateRig(t)
				w := r.ringDial(64)
				w.do(w.putDesc(0, 0, 10))
				var fresh []ioctl.Handle
				for range 8 {
					fresh = append(fresh, w.alloc(4096))
					w.do(w.desc(ioctl.OpMblockWrite, fresh[len(fresh)-1], 0, 0, 4096))
				}
				g.hold(c.held)
				for _, h := range fresh {
					if verb == ioctl.OpObjectCommit {
						w.put(w.desc(verb, h, 0, 0, 0))
					} else {
						w.do(w.desc(ioctl.OpClose, h, 0, 0, 0))
						w.put(w.putDesc(0, 0, 4096))
					}
				}
				g.heldAtLeast(t, 1)
				r.loopHas(8)
				w.conn.Close()
				r.nextReaped(1)
				g.open()
				want := c.want
				if verb == ioctl.OpObjectCommit {
					want = 8 // their records were sent, too
				}
				until(t, "all is settled", func() bool {
					n, u, m := r.left()
					return n == 1+want && u == 0 && m == 0
				})
				until(t, "the session is gone", func() bool { return len(r.srv.all()) == 0 && r.srv.arenaBytes.Load() == 0 })
				info, err := must[*activePool](t)(r.srv.pools.get("data")).pool.Info(context.Background())
				if err != nil || info.Space.Uncommitted != 0 {
					t.Errorf("%+v, %v", info.Space, err)
				}
			})
		}
	}
}

// loopHas waits until the loop has taken so many descriptors that it has not
// answered.
func (r *rig) loopHas(n int) {
	r.t.Helper()
	l := r.srv.loops.all()[0]
	until(r.t, "all are taken", func() bool {
		open := make(chan int)
		l.do(func() { open <- l.sets[0].open })
		return <-open == n
	})
}

// A put of the dead waits for no drive: neither for the zones that a hanging one is
// asked to discard, nor, behind that, for a turn.
//
// proves S33 S42
func TestPutOfTheDeadWaitsForNoDrive(t *testing.T) {
	const most = 64 << 20 // of a drive of 128 MiB, of which there is one
	for _, by := range []string{"ring", "socket"} {
		t.Run(by, func(t *testing.T) {
			r, g := newGateRigOn(t, &gates{discards: true})
			w := r.ringDial(16)
			h := w.alloc(most)
			g.hold(func(o *bdev.Op) bool { return o.Code == bdev.OpDiscard })
			w.ok(ioctl.OpObjectAbort, &ioctl.Target{Handle: h})
			g.heldAtLeast(t, 1)
			if by == "ring" {
				w.put(w.putDesc(most, 0, 10))
			} else {
				m := &ioctl.MblockPut{Pool: w.pool, Options: api.AllocOptions{Capacity: most}, Data: ioctl.InlinePayload(make([]byte, 10))}
				w.send(ioctl.Header{Op: ioctl.OpMblockPut, Tag: 1 << 40}, m)
			}
			until(t, "it waits for space", func() bool {
				var all bytes.Buffer
				if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
					t.Fatal(err)
				}
				return strings.Contains(all.String(), "mpool.(*releases).wait")
			})
			w.conn.Close()
			r.nextReaped(1)
			until(t, "the session is gone", func() bool { return len(r.srv.all()) == 0 && r.srv.arenaBytes.Load() == 0 })
			if objects, _, remembered := r.left(); objects != 0 || remembered != 0 {
				t.Errorf("%d objects are left, %d are remembered", objects, remembered)
			}
			if len(g.waiting()) == 0 {
				t.Error("the drive did not hang meanwhile")
			}
		})
	}
}

// An allocation is in no lane of its handle, whatever that handle is and whatever
// waits there: it does not wait for that, and the daemon keeps nothing when all is
// answered.
//
// proves S43
func TestRingAllocationsKeepNoLane(t *testing.T) {
	r := newLoopRig(t, func(o *Options) { o.Loops = 1 })
	w := r.ringDial(64)
	w.alloc(1) // who acts for whom is known from now on
	set, goOn := withoutLanes(w)
	const pairs = 24
	lanes := func() (lanes, open int) {
		done := make(chan struct{})
		set.loop.do(func() {
			lanes, open = len(set.lanes), set.open
			close(done)
		})
		<-done
		return lanes, open
	}
	fails := func(n int) {
		for range n {
			if h, _, err := w.recv(); err != nil || h.Flags&ioctl.FlagError == 0 {
				t.Fatalf("%+v, %v; want an error", h, err)
			}
		}
	}
	w.put(w.desc(ioctl.OpClose, w.pool, 0, 0, 0)) // fails: it is in use
	for i := range pairs {
		h := w.pool + ioctl.Handle(i+1)<<32 // of a pool that there is not
		first := w.desc(ioctl.OpClose, h, 0, 0, 0)
		if i%2 == 1 {
			first = w.desc(ioctl.OpMblockRead, h, 0, 0, 5<<20)
		}
		second := w.desc(ioctl.OpMblockAlloc, h, 10, 0, 0)
		if i%3 == 2 {
			second = w.putDesc(0, 0, 10)
			second.Handle = uint64(h)
		}
		w.put(first)
		w.put(second)
	}
	fails(pairs) // the allocations
	w.do(w.desc(ioctl.OpMblockAlloc, w.pool, 10, 0, 0))
	if n, open := lanes(); n != 1+pairs || open != 1+pairs {
		t.Errorf("%d lanes and %d operations, want %d", n, open, 1+pairs)
	}
	goOn()
	fails(1 + pairs)
	until(t, "all is answered", func() bool { _, open := lanes(); return open == 0 })
	if n, _ := lanes(); n != 0 {
		t.Errorf("%d lanes are left", n)
	}
}
