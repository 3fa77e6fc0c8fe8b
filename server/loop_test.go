package server

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// A session that asks for as much as it can does not keep one that asks for
// little from its share: of each small read, it is counted how many of the
// greedy session's the device does meanwhile. Two sessions share 4 MiB and 32
// requests; one more may have been begun. Before there were two, it had what its
// ring or the drive has room for.
//
// proves S42
func TestRingFairness(t *testing.T) {
	t.Run("bytes", func(t *testing.T) { ringFairness(t, 1<<20, 64, 3, 17) })
	t.Run("requests", func(t *testing.T) { ringFairness(t, 8<<10, 32, 17, 33) })
}

// ringFairness has a greedy session read size bytes at a time, as many as its ring
// has entries, and wants at most bound of its reads done while a small one of
// another session waits, first while the very first one does.
func ringFairness(t *testing.T, size, entries, bound, first int) {
	r, g := newGateRig(t, func(o *Options) { o.Loops = 1 })
	// Each window has bytes of its own: else what is read into one twice at one time
	// does not match its checksum, and goes another way.
	windows := min(entries, 4<<20/size)
	greedy := r.ringDial(entries)
	h := greedy.stored(random(1, 4<<20))
	modest := r.ringDial(4)
	m := modest.stored(random(2, 64<<10))
	// The checksums are known then, and the modest one is forgotten.
	for i := range shareAge + 100 {
		greedy.do(greedy.desc(ioctl.OpMblockRead, h, int64(i%2*1023)*4096, 0, 4096))
	}

	g.hold(readsAndWrites)
	posted := 0
	feed := func() {
		for greedy.c.Put(greedy.desc(ioctl.OpMblockRead, h, int64(posted%windows*size), posted%windows*size, size)) {
			posted++
			if posted%entries == 0 {
				break
			}
		}
		greedy.c.Bell()
	}
	feed()
	g.heldAtLeast(t, min(driveBytes/size, entries))
	var x ring.Completion
	for i := range 40 {
		if i > 0 {
			// It goes on asking, and has as much under way as it may before the
			// other one asks.
			until(t, "the greedy session has its share", func() bool {
				for greedy.c.Take(&ring.Completion{}) {
				}
				feed()
				return count(g.waiting(), int64(size)) >= bound-1
			})
		}
		// Nobody else does anything of this size.
		d := modest.desc(ioctl.OpMblockRead, m, int64(i%13)*4096, 0, 12288)
		modest.put(d)
		// It has its place in the device's queue although the greedy one has not
		// had its own.
		small := func() bool { return slices.Contains(g.waiting(), 12288) }
		until(t, "the small read is started", small)
		most := bound
		if i == 0 {
			most = first
		}
		passed := 0
		for !modest.c.Take(&x) {
			waiting := g.waiting()
			if n := count(waiting, int64(size)); i > 0 && n > bound {
				t.Fatalf("%d of the greedy session's are started while both ask, want at most %d", n, bound)
			}
			// The device does one thing after another.
			before := small()
			if g.release() && before && small() && waiting[0] == int64(size) {
				passed++
			}
			for greedy.c.Take(&ring.Completion{}) {
			}
			if !small() {
				until(t, "the small read ends", modest.c.Ready)
			}
			feed()
		}
		if x.Tag != d.Tag {
			t.Fatalf("%+v", x)
		}
		if passed > most {
			t.Errorf("read %d came after %d of the greedy session's, want at most %d", i, passed, most)
		}
	}
	g.open()
}

// count returns how many of the sizes are this one.
func count(sizes []int64, size int64) (n int) {
	for _, s := range sizes {
		if s == size {
			n++
		}
	}
	return n
}

// A drive that hangs holds up nothing that the same ring asks of another one.
//
// proves S42
func TestRingOfAStalledDrive(t *testing.T) {
	r, g := newGateRig(t, func(o *Options) { o.Loops = 1 })
	path := driveFile(t, 128<<20)
	if _, err := r.srv.CreatePool(context.Background(), "other", []string{path}, api.CreateOptions{Mode: 0o666}); err != nil {
		t.Fatal(err)
	}
	w := r.ringDial(512)
	h := w.stored(random(1, 1<<20))
	w.pool = w.opened(ioctl.OpPoolOpen, &ioctl.PoolName{Name: "other"})
	p := random(2, 1<<20)
	o := w.stored(p)
	for i := range 256 {
		w.do(w.desc(ioctl.OpMblockRead, h, int64(i)*4096, 0, 4096)) // its checksums are known then
		w.do(w.desc(ioctl.OpMblockRead, o, int64(i)*4096, 0, 4096))
	}
	g.hold(readsAndWrites)
	for i := range 400 {
		w.put(w.desc(ioctl.OpMblockRead, h, int64(i%256)*4096, 4096, 4096))
	}
	g.heldAtLeast(t, driveOps)
	for i := range 50 {
		w.do(w.desc(ioctl.OpMblockRead, o, int64(i)*4096, 0, 4096))
		if !bytes.Equal(w.mem[:4096], p[i*4096:][:4096]) {
			t.Fatal("other bytes")
		}
	}
	// The last request of them may read its checksums, too.
	if n := len(g.waiting()); n > driveOps+1 {
		t.Errorf("%d operations of the stalled drive are under way, at most %d may", n, driveOps+1)
	}
	g.open()
	for range 400 {
		w.next()
	}
}

// Writes to one mblock and appends to one log are done in the ring's order,
// whichever of them go through a lane.
func TestRingOrder(t *testing.T) {
	r := newLoopRig(t)
	w := r.ringDial(64)
	const size = 12 << 20
	_, all, _ := w.raw.arena(16 << 20)
	w.ok(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: 2})
	p := random(5, size)
	copy(all, p)
	h := w.alloc(size)
	m := w.opened(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: w.pool, Options: api.AllocOptions{Capacity: 32 << 20}})
	w.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: m})
	a := w.opened(ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: m})
	at, want := 0, map[uint64]uint64{} // numbers of records by tag
	under := 0
	next := func() {
		x := w.next()
		under--
		if number, ok := want[x.Tag]; ok && x.A != number {
			t.Errorf("record %d came to be number %d", number, x.A)
		}
	}
	lengths := []int{4096, 1 << 20, loopMaxData + 4096, 4096, 8192}
	for i := 0; at < size; i++ {
		n := min(lengths[i%len(lengths)], size-at)
		d := w.desc(ioctl.OpMblockWrite, h, 0, 0, n)
		d.Arena, d.Window = 2, uint32(at)
		w.put(d)
		n = []int{100, loopMaxRecord + 1, 100, 100}[i%4]
		d = w.desc(ioctl.OpAppend, a, 0, 0, n)
		d.Flags = uint8(i/2) & ring.FlagSync
		want[d.Tag] = uint64(len(want))
		w.put(d)
		under += 2
		at += min(lengths[i%len(lengths)], size-at)
		if i%8 == 7 {
			for range 16 {
				next()
			}
		}
	}
	w.put(w.desc(ioctl.OpSync, a, 0, 0, 0))
	for under++; under > 0; { // the sync is not behind the writes
		next()
	}
	w.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: h})
	got := make([]byte, size)
	for off := 0; off < size; off += 1 << 20 {
		w.do(w.desc(ioctl.OpMblockRead, h, int64(off), 0, 1<<20))
		copy(got[off:], w.mem[:1<<20])
	}
	if !bytes.Equal(got, p) {
		t.Error("the writes were not in order")
	}
	if n := r.srv.Snapshot().Loops[0].Slow; n == 0 {
		t.Error("nothing went through a lane")
	}
}

// A session ends while its drive hangs: its references go at once, so that
// another may delete the object; its memory stays while the device has it.
//
// proves S33
func TestRingSessionEndsUnderIO(t *testing.T) {
	for _, what := range []string{"read", "write", "append"} {
		t.Run(what, func(t *testing.T) {
			r, g := newGateRig(t)
			w := r.ringDial(256)
			h := w.stored(random(1, 1<<20))
			u := w.alloc(1 << 20)
			id := w.ok(ioctl.OpObjectInfo, &ioctl.Target{Handle: h}).(*ioctl.ObjectReply).Info.ID
			uid := w.ok(ioctl.OpObjectInfo, &ioctl.Target{Handle: u}).(*ioctl.ObjectReply).Info.ID
			m := w.opened(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: w.pool, Options: api.AllocOptions{Capacity: 4 << 20}})
			w.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: m})
			a := w.opened(ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: m})
			g.hold(readsAndWrites)
			for i := range 200 {
				switch what {
				case "read":
					w.put(w.desc(ioctl.OpMblockRead, h, 0, 0, 4096))
				case "write":
					w.put(w.desc(ioctl.OpMblockWrite, u, 0, 0, 4096))
				case "append":
					d := w.desc(ioctl.OpAppend, a, 0, 0, 512)
					d.Flags = uint8(i) & ring.FlagSync
					w.put(d)
				}
			}
			g.heldAtLeast(t, 1)
			if what != "append" {
				g.heldAtLeast(t, driveOps)
			}
			started := len(g.waiting())
			bytes := r.srv.arenaBytes.Load()
			w.conn.Close()
			r.nextReaped(1)
			if what != "append" && r.srv.arenaBytes.Load() != bytes {
				t.Error("memory is gone that the device has")
			}
			ctx, cancel := context.WithTimeout(context.Background(), inVain)
			defer cancel()
			c := r.dial()
			p := r.open(c)
			until(t, "the uncommitted object is gone", func() bool {
				_, err := p.Mblock(ctx, uid)
				return errors.Is(err, api.ENOENT)
			})
			b := must[api.Mblock](t)(p.Mblock(ctx, id))
			if info := must[api.ObjectInfo](t)(b.Info(ctx)); info.Refs != 1 {
				t.Errorf("%d references on the object, want the asker's", info.Refs)
			}
			if what == "read" {
				go g.open() // the delete is written, too
				if err := b.Delete(ctx); err != nil {
					t.Error(err)
				}
			} else {
				g.open()
				if err := b.Put(); err != nil {
					t.Error(err)
				}
			}
			until(t, "the memory is gone", func() bool { return r.srv.arenaBytes.Load() == 0 })
			until(t, "the session is gone", func() bool { return len(r.srv.all()) == 1 })
			g.mu.Lock()
			defer g.mu.Unlock()
			if what == "write" && g.began > started+500 {
				t.Errorf("%d operations were begun", g.began)
			}
		})
	}
}

// A pool ends although a loop has its drives registered, and can be activated
// again at once; so does the next pool on the drive.
func TestRingDrivesAreLetGo(t *testing.T) {
	eachLoopKind(t, func(t *testing.T, change func(*Options)) {
		ctx := context.Background()
		path := driveFile(t, 128<<20)
		r := newRigOn(t, path, func(o *Options) { o.Backend = Engine{} }, change)
		keeps := r.ringDial(8) // the loop goes on
		keeps.stored(random(1, 8192))
		if err := r.srv.DeactivatePool(ctx, "data"); !errors.Is(err, api.EBUSY) {
			t.Fatalf("deactivate a pool in use: %v", err)
		}
		for i := range 3 {
			w := r.ringDial(8)
			h := w.stored(random(1, 8192))
			w.do(w.desc(ioctl.OpMblockRead, h, 0, 0, 8192))
			w.conn.Close()
			if i == 0 {
				keeps.conn.Close()
				r.idleRing()
			}
			until(t, "the sessions have ended", func() bool { return len(r.srv.all()) == 1 })
			if err := r.srv.DeactivatePool(ctx, "data"); err != nil {
				t.Fatal(err)
			}
			if d, err := bdev.Open(ctx, nil, path, bdev.OpenOptions{}); err != nil {
				t.Errorf("the drive is still claimed: %v", err)
			} else if err := d.Close(); err != nil {
				t.Error(err)
			}
			if err := r.srv.Activate(ctx, "data", []string{path}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// idleRing makes a session with a ring and no pool.
func (r *rig) idleRing() *ringClient {
	r.t.Helper()
	w := &ringClient{raw: r.raw(), r: r}
	w.arena, w.all, _ = w.raw.arena(1 << 20)
	w.ok(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: w.arena})
	w.ring, w.c = w.newRing(0, 16)
	return w
}
