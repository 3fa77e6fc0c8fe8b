package server

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// driveFile makes a file that a pool can be on.
func driveFile(t *testing.T, size int64) string {
	t.Helper()
	dir, err := os.MkdirTemp(".", "drive") // on the disk: a temporary folder may have no direct I/O
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "drive")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// newLoopRig is a rig over the real engine, with the pool "data" on a file.
func newLoopRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	change = append([]func(*Options){func(o *Options) { o.Backend = Engine{} }}, change...)
	return newRigOn(t, driveFile(t, 128<<20), change...)
}

// ringClient is a client that sends what it likes, also through a ring.
type ringClient struct {
	*raw
	r     *rig
	c     *ring.Client
	arena uint16
	mem   []byte // the arena's, behind the ring
	all   []byte
	at    uint32 // mem's offset into the arena
	ring  uint16
	pool  ioctl.Handle
}

// ringDial makes a session with one ring at the begin of an arena.
func (r *rig) ringDial(entries int) *ringClient {
	r.t.Helper()
	w := &ringClient{raw: r.raw(), r: r}
	w.pool = w.openPool()
	w.arena, w.all, _ = w.raw.arena(8 << 20)
	w.ok(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: w.arena})
	w.ring, w.c = w.newRing(0, entries)
	w.at = uint32(ring.Size(entries))
	w.mem = w.all[w.at:]
	return w
}

// newRing makes a ring at an offset into the arena.
func (w *ringClient) newRing(at uint32, entries int) (uint16, *ring.Client) {
	w.t.Helper()
	mem := w.all[at:][:ring.Size(entries)]
	clear(mem)
	c, err := ring.NewClient(mem, entries)
	if err != nil {
		w.t.Fatal(err)
	}
	m := w.ok(ioctl.OpRing, &ioctl.RingAsk{Version: ring.Version, Arena: w.arena, Offset: at, Entries: uint32(entries)})
	return m.(*ioctl.RingReply).Ring, c
}

// desc makes a descriptor with a window at an offset into mem.
func (w *ringClient) desc(op ioctl.Op, h ioctl.Handle, off int64, at, n int) *ring.Descriptor {
	w.tag++
	d := &ring.Descriptor{Op: uint16(op), Tag: w.tag, Handle: uint64(h), Offset: off, Length: uint32(n)}
	if n > 0 {
		d.Arena, d.Window = w.arena, w.at+uint32(at)
	}
	return d
}

// put puts a descriptor into the ring and rings.
func (w *ringClient) put(d *ring.Descriptor) {
	w.t.Helper()
	for end := time.Now().Add(inVain); !w.c.Put(d); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatal("the ring stays full")
		}
	}
	w.c.Bell()
}

// next waits for the next completion.
func (w *ringClient) next() ring.Completion {
	w.t.Helper()
	var x ring.Completion
	for end := time.Now().Add(inVain); !w.c.Take(&x); w.c.Wait(100 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("no completion comes; the server's log:\n%s", w.r.log.String())
		}
	}
	return x
}

// do has one descriptor served that must succeed.
func (w *ringClient) do(d *ring.Descriptor) ring.Completion {
	w.t.Helper()
	w.put(d)
	x := w.next()
	if x.Tag != d.Tag || x.Op != d.Op {
		w.t.Fatalf("completion %+v of descriptor %+v", x, d)
	}
	return x
}

// fails has one descriptor served that must fail, and returns the error.
func (w *ringClient) fails(d *ring.Descriptor) error {
	w.t.Helper()
	w.put(d)
	_, err := w.answer(ioctl.Op(d.Op), d.Tag)
	if err == nil {
		w.t.Fatalf("descriptor %+v was answered on the socket, without an error", d)
	}
	return err
}

func (w *ringClient) alloc(capacity int64) ioctl.Handle {
	w.t.Helper()
	return w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: w.pool, Options: api.AllocOptions{Capacity: capacity}})
}

// stored makes a committed mblock with the bytes.
func (w *ringClient) stored(p []byte) ioctl.Handle {
	w.t.Helper()
	h := w.alloc(int64(len(p)))
	for off := 0; off < len(p); off += 1 << 20 {
		n := copy(w.mem[:1<<20], p[off:])
		w.do(w.desc(ioctl.OpMblockWrite, h, 0, 0, n))
	}
	w.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: h})
	return h
}

func random(seed uint64, n int) []byte {
	p := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = rng.Read(p)
	return p
}

// loopKinds are the ways in which a loop can work.
var loopKinds = map[string]func(*Options){
	"io_uring":      func(*Options) {},
	"no futex wait": func(o *Options) { o.loopTest.noWords = true },
	"no io_uring":   func(o *Options) { o.loopTest.noURing = true },
	"spins":         func(o *Options) { o.loopTest.spins = true },
	"no registered": func(o *Options) { o.loopTest.noRegister = true },
}

func eachLoopKind(t *testing.T, f func(t *testing.T, change func(*Options))) {
	t.Helper()
	for name, change := range loopKinds {
		t.Run(name, func(t *testing.T) { f(t, change) })
	}
}

// allOps does every operation that a ring has.
func allOps(t *testing.T, w *ringClient) {
	t.Helper()
	// mblocks
	p := random(1, 300000)
	h := w.alloc(int64(len(p)))
	copy(w.mem, p)
	if x := w.do(w.desc(ioctl.OpMblockWrite, h, int64(len(p)), 0, 1<<18)); x.N != 1<<18 {
		t.Errorf("written: %+v", x)
	}
	if x := w.do(w.desc(ioctl.OpMblockWrite, h, 0, 1<<18, len(p)-1<<18)); int(x.N) != len(p)-1<<18 {
		t.Errorf("written: %+v", x)
	}
	w.do(w.desc(ioctl.OpMblockWrite, h, 0, 0, 0))
	for _, committed := range []bool{false, true} {
		if committed {
			w.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: h})
		}
		for _, c := range []struct {
			off  int64
			n, m int
			eof  bool
		}{
			{0, 4096, 4096, false},
			{8192, 65536, 65536, false},
			{100, 5000, 5000, false},
			{0, len(p), len(p), false},
			{int64(len(p)) - 10, 4096, 10, true},
			{int64(len(p)), 4096, 0, true},
			{0, 0, 0, false},
		} {
			clear(w.mem[1<<20:][:c.n])
			x := w.do(w.desc(ioctl.OpMblockRead, h, c.off, 1<<20, c.n))
			if int(x.N) != c.m || (x.Flags == ring.FlagEOF) != c.eof {
				t.Errorf("committed %v, read %+v: %+v", committed, c, x)
			}
			if !bytes.Equal(w.mem[1<<20:][:c.m], p[c.off:][:c.m]) {
				t.Errorf("committed %v, read %+v: other bytes", committed, c)
			}
		}
	}
	// logs
	m := w.opened(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: w.pool, Options: api.AllocOptions{Capacity: 4 << 20}})
	w.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: m})
	a := w.opened(ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: m})
	total := 0
	for i, n := range []int{5, 0, 4096, 100000, 400000} {
		for _, flags := range []uint8{0, ring.FlagSync} {
			d := w.desc(ioctl.OpAppend, a, 0, 0, n)
			d.Flags = flags
			total += n
			copy(w.mem, random(uint64(10+i), n))
			number := uint64(2 * i)
			if flags != 0 {
				number++
			}
			if x := w.do(d); x.A != number || int(x.B) != total || int(x.N) != n {
				t.Errorf("appended %d bytes: %+v, want record %d, %d bytes in all", n, x, number, total)
			}
		}
	}
	w.do(w.desc(ioctl.OpAppend, a, 0, 0, 7))
	w.do(w.desc(ioctl.OpSync, a, 0, 0, 0))
	w.do(w.desc(ioctl.OpSync, a, 0, 0, 0))
	r := w.opened(ioctl.OpMlogOpenRead, &ioctl.Target{Handle: m})
	for i, n := range []int{5, 5, 0, 0, 4096, 4096, 100000, 100000, 400000, 400000} {
		into := ioctl.Window{Arena: w.arena, Offset: w.at, Length: 1 << 20}
		x := w.ok(ioctl.OpReadNext, &ioctl.ReadNext{Reader: r, Into: into}).(*ioctl.ReadNextReply)
		if int(x.N) != n || !bytes.Equal(w.mem[:n], random(uint64(10+i/2), n)) {
			t.Errorf("record %d: %+v", i, x)
		}
	}
	w.ok(ioctl.OpClose, &ioctl.Target{Handle: r})
	w.ok(ioctl.OpClose, &ioctl.Target{Handle: a})
	// containers
	id := w.ok(ioctl.OpMDCCreate, &ioctl.Alloc{Pool: w.pool, Options: api.AllocOptions{Capacity: 1 << 20}}).(*ioctl.MDCCreated).ID
	c := w.opened(ioctl.OpMDCOpen, &ioctl.Find{Pool: w.pool, ID: id})
	w.do(w.desc(ioctl.OpMDCAppend, c, 0, 0, 77))
	d := w.desc(ioctl.OpMDCAppend, c, 0, 0, 77)
	d.Flags = ring.FlagSync
	w.do(d)
	w.do(w.desc(ioctl.OpMDCSync, c, 0, 0, 0))
	w.ok(ioctl.OpClose, &ioctl.Target{Handle: c})
	w.ok(ioctl.OpObjectDelete, &ioctl.Target{Handle: h})
}

// Every operation that a ring has, on every kind of loop, by the engine and by
// another backend, whose operations all go to lanes.
func TestRingOps(t *testing.T) {
	eachLoopKind(t, func(t *testing.T, change func(*Options)) {
		r := newLoopRig(t, change)
		w := r.ringDial(16)
		allOps(t, w)
		w.ok(ioctl.OpRingClose, &ioctl.RingClose{Ring: w.ring})
		v := r.srv.Snapshot()
		t.Logf("%+v", v.Loops)
	})
}

// errorsOf checks what descriptors that cannot be served are answered.
func TestRingErrors(t *testing.T) {
	r := newLoopRig(t)
	w := r.ringDial(16)
	h := w.stored(random(3, 8192))
	m := w.opened(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: w.pool, Options: api.AllocOptions{Capacity: 1 << 20}})
	for name, c := range map[string]struct {
		d    *ring.Descriptor
		code api.Code
	}{
		"no handle":          {w.desc(ioctl.OpMblockRead, 0, 0, 0, 4096), api.EBADF},
		"stale handle":       {w.desc(ioctl.OpMblockRead, h+1<<32, 0, 0, 4096), api.EBADF},
		"of another kind":    {w.desc(ioctl.OpMblockRead, m, 0, 0, 4096), api.EBADF},
		"sync of a log":      {w.desc(ioctl.OpSync, m, 0, 0, 0), api.EBADF},
		"append to mblock":   {w.desc(ioctl.OpAppend, h, 0, 0, 10), api.EBADF},
		"negative offset":    {w.desc(ioctl.OpMblockRead, h, -4096, 0, 4096), api.EINVAL},
		"write to committed": {w.desc(ioctl.OpMblockWrite, h, 0, 0, 4096), api.ESTATE},
		"no arena":           {func() *ring.Descriptor { d := w.desc(ioctl.OpMblockRead, h, 0, 0, 10); d.Arena = 9; return d }(), api.EINVAL},
		"odd window":         {w.desc(ioctl.OpMblockRead, h, 0, 100, 4096), api.EINVAL},
		"past the arena":     {w.desc(ioctl.OpMblockRead, h, 0, len(w.mem)-4096, 8192), api.EINVAL},
		"far past it":        {w.desc(ioctl.OpMblockRead, h, 0, 1<<31, 1<<31+4096), api.EINVAL},
	} {
		err := w.fails(c.d)
		var e *api.Error
		if !errors.Is(err, c.code) || !errors.As(err, &e) || e.Op != ioctl.Op(c.d.Op).Name() {
			t.Errorf("%s: %v; want %v of %v", name, err, c.code, ioctl.Op(c.d.Op))
		}
	}
	u := w.alloc(8192)
	want(t, api.EFBIG, w.fails(w.desc(ioctl.OpMblockWrite, u, 12288, 0, 4096)))
	want(t, api.EFBIG, w.fails(w.desc(ioctl.OpMblockWrite, u, 0, 0, 12288)))
	want(t, api.EBADF, w.fails(w.desc(ioctl.OpMblockRead, 0, 0, 0, 5<<20))) // by its lane
	if x := w.do(w.desc(ioctl.OpMblockRead, h, 0, 0, 4096)); x.N != 4096 {
		t.Errorf("the ring is of no use any more: %+v", x)
	}
	for _, err := range []error{
		func() error {
			_, err := w.ask(ioctl.OpRing, &ioctl.RingAsk{Version: ring.Version + 1, Arena: 1, Entries: 8})
			return err
		}(),
	} {
		want(t, api.ENOTSUP, err)
	}
	for _, ask := range []*ioctl.RingAsk{
		{Version: ring.Version, Arena: 2, Entries: 8},
		{Version: ring.Version, Arena: 1, Entries: 0},
		{Version: ring.Version, Arena: 1, Entries: 1},
		{Version: ring.Version, Arena: 1, Entries: 12},
		{Version: ring.Version, Arena: 1, Entries: 8192},
		{Version: ring.Version, Arena: 1, Entries: 1 << 31},
		{Version: ring.Version, Arena: 1, Entries: 8, Offset: 64},
		{Version: ring.Version, Arena: 1, Entries: 8, Offset: 8 << 20},
		{Version: ring.Version, Arena: 1, Entries: 4096, Offset: 8<<20 - 4096},
	} {
		_, err := w.ask(ioctl.OpRing, ask)
		want(t, api.EINVAL, err)
	}
	_, err := w.ask(ioctl.OpRingClose, &ioctl.RingClose{Ring: 5})
	want(t, api.EINVAL, err)
	_, err = w.ask(ioctl.OpRingClose, &ioctl.RingClose{})
	want(t, api.EINVAL, err)
}
