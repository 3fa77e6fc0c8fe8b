package hostile

import (
	"errors"
	"math"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

// The words of a ring, in bytes from its beginning; see package ring.
const (
	submittedAt   = 0x000
	takenAt       = 0x080
	bellAt        = 0x100
	endedAt       = 0x180
	seenAt        = 0x200
	waiterAt      = 0x280
	descriptorsAt = 0x1000
)

// words are those that each side reads of the other's.
var words = []int{submittedAt, takenAt, bellAt, endedAt, seenAt, waiterAt}

// rawRing is a ring whose client writes what it likes, from any thread. It lies at
// the beginning of an arena; behind it are the buffers.
type rawRing struct {
	number  uint16
	arena   uint16
	fd      int
	mem     []byte // the whole arena
	entries int
	put     uint32 // descriptors so far
}

// ringArena is how large an arena of a ring is.
const ringArena = 256 << 10

// ring makes an arena and a ring in it, or returns nil. The arena's descriptor
// stays open.
func (a *attacker) ring(w *daemon.Raw, entries int) *rawRing {
	a.sent.Add(3)
	arena, fd, err := w.Arena(ringArena)
	if err != nil {
		return nil
	}
	r := &rawRing{arena: arena.Arena, fd: fd, entries: entries}
	if r.mem, err = unix.Mmap(fd, 0, ringArena, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		check(unix.Close(fd))
		return nil
	}
	if _, err = w.Ask(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: r.arena}); err == nil {
		err = r.open(w, 0)
	}
	if err != nil {
		r.close()
		return nil
	}
	return r
}

// open makes a ring in the arena.
func (r *rawRing) open(w *daemon.Raw, offset uint32) error {
	reply, err := w.Ask(ioctl.OpRing, &ioctl.RingAsk{Version: ring.Version, Arena: r.arena, Offset: offset, Entries: uint32(r.entries)})
	if err != nil {
		return err
	}
	if m, ok := reply.(*ioctl.RingReply); ok {
		r.number = m.Ring
	}
	return nil
}

func (r *rawRing) close() {
	_ = unix.Munmap(r.mem) // an attack may have done that
	check(unix.Close(r.fd))
}

func (r *rawRing) word(at int) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&r.mem[at])) }

// data is where the buffers begin.
func (r *rawRing) data() uint32 { return uint32(ring.Size(r.entries)) }

// slot returns the words of a descriptor.
func (r *rawRing) slot(n uint32) *[ring.DescriptorSize / 8]atomic.Uint64 {
	at := descriptorsAt + int(n)%r.entries*ring.DescriptorSize
	return (*[ring.DescriptorSize / 8]atomic.Uint64)(unsafe.Pointer(&r.mem[at]))
}

// write writes a descriptor where the next one lies, or any other.
func (r *rawRing) write(n uint32, d *ring.Descriptor) {
	e := r.slot(n)
	e[0].Store(uint64(d.Op) | uint64(d.Flags)<<16 | uint64(d.Class)<<24 | uint64(d.Arena)<<32)
	e[1].Store(d.Tag)
	e[2].Store(d.Handle)
	e[3].Store(uint64(d.Offset))
	e[4].Store(uint64(d.Window) | uint64(d.Length)<<32)
	e[5].Store(uint64(d.Owner))
	e[6].Store(d.Label)
	e[7].Store(0)
}

// ask puts a descriptor into the ring and rings; false: it is full.
func (r *rawRing) ask(d *ring.Descriptor) bool {
	if r.put-r.word(takenAt).Load() >= uint32(r.entries) {
		return false
	}
	r.write(r.put, d)
	r.put++
	r.word(submittedAt).Store(r.put)
	if w := r.word(bellAt); w.Load() != 0 {
		w.Store(0)
		r.wake()
	}
	return true
}

// wake wakes who waits for the bell.
func (r *rawRing) wake() { futexWake(unsafe.Pointer(&r.mem[bellAt])) }

// futexWake wakes all who wait for a word.
func futexWake(word unsafe.Pointer) {
	const wake = 1
	_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(word), wake, math.MaxInt32, 0, 0, 0) // nobody may wait
}

// take takes all completions there are.
func (r *rawRing) take() { r.word(seenAt).Store(r.word(endedAt).Load()) }

// stage is a session with a ring and objects to use it on.
type stage struct {
	a     *attacker
	w     *daemon.Raw
	pool  ioctl.Handle
	r     *rawRing
	read  ioctl.Handle // a committed mblock of 64 KiB
	fresh ioctl.Handle // an uncommitted one of 256 KiB
	app   ioctl.Handle
	mdc   ioctl.Handle
	tag   uint64
	made  int // mblocks that it has asked for through the ring
}

// What is asked for of what stays for a session, or for ever: else the pool would
// soon be full.
const (
	mostMade = 64
	mostPuts = 64
)

// blockBytes is what the stage's committed mblock has.
const blockBytes = ioctl.MaxInline

// stage makes one, or returns nil.
func (a *attacker) stage(entries int) *stage {
	w, pool := a.open()
	if w == nil {
		return nil
	}
	st := &stage{a: a, w: w, pool: pool, tag: 1 << 32}
	if st.r = a.ring(w, entries); st.r == nil {
		w.Conn.Close()
		return nil
	}
	_ = w.Conn.SetDeadline(time.Now().Add(10 * a.patience)) // then the next call fails
	st.read = a.reuse(w, pool, ioctl.OpMblockFind, &a.block, func() ioctl.Handle {
		h := a.give(w, ioctl.OpMblockAlloc, allocation(pool, blockBytes))
		data := ioctl.InlinePayload(make([]byte, blockBytes))
		_, _ = a.ask(w, ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: h, Total: blockBytes, Data: data}) // it may fail
		return h
	})
	st.fresh = a.give(w, ioctl.OpMblockAlloc, allocation(pool, 256<<10))
	l := a.reuse(w, pool, ioctl.OpMlogFind, &a.log, func() ioctl.Handle {
		return a.give(w, ioctl.OpMlogAlloc, allocation(pool, 64<<10))
	})
	_, _ = a.ask(w, ioctl.OpMlogErase, &ioctl.MlogErase{Mlog: l}) // it may fail
	st.app = a.give(w, ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: l})
	st.mdc = a.give(w, ioctl.OpMDCOpen, &ioctl.Find{Pool: pool, ID: a.mdc})
	if st.mdc == 0 {
		reply, _ := a.ask(w, ioctl.OpMDCCreate, allocation(pool, 64<<10)) // it may fail
		if m, ok := reply.(*ioctl.MDCCreated); ok {
			a.mdc = m.ID
			st.mdc = a.give(w, ioctl.OpMDCOpen, &ioctl.Find{Pool: pool, ID: m.ID})
		}
	}
	return st
}

func allocation(pool ioctl.Handle, capacity int64) *ioctl.Alloc {
	return &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: capacity}}
}

// reuse opens an object that an attacker has, or makes it: else the pool would
// soon be full of them.
func (a *attacker) reuse(w *daemon.Raw, pool ioctl.Handle, find ioctl.Op, id *layout.ObjectID, create func() ioctl.Handle) ioctl.Handle {
	if *id != 0 {
		if h := a.give(w, find, &ioctl.Find{Pool: pool, ID: *id}); h != 0 {
			return h
		}
	}
	h := create()
	_, _ = a.ask(w, ioctl.OpObjectCommit, &ioctl.Target{Handle: h}) // it may fail
	if reply, err := a.ask(w, ioctl.OpObjectInfo, &ioctl.Target{Handle: h}); err == nil {
		if m, ok := reply.(*ioctl.ObjectReply); ok {
			*id = m.Info.ID
		}
	}
	return h
}

func (st *stage) close() {
	st.w.Conn.Close()
	st.r.close()
}

// proper returns a descriptor that asks for what may be asked.
func (st *stage) proper() *ring.Descriptor {
	rng, r := st.a.rng, st.r
	st.tag++
	st.a.sent.Add(1)
	d := &ring.Descriptor{Tag: st.tag, Arena: r.arena, Window: r.data() + uint32(rng.IntN(8))*4096, Length: uint32(rng.IntN(16 << 10))}
	switch rng.IntN(9) {
	case 6:
		st.made++
		d.Op, d.Handle, d.Offset = uint16(ioctl.OpMblockAlloc), uint64(st.pool), int64(rng.IntN(blockBytes))
		if st.made > mostMade {
			d.Offset = -1
		}
		d.Arena, d.Window, d.Length, d.Label = 0, 0, 0, rng.Uint64()
	case 7:
		d.Op, d.Handle, d.Arena, d.Window, d.Length = uint16(ioctl.OpObjectCommit), uint64(st.read), 0, 0, 0
	case 8:
		d.Op, d.Handle, d.Arena, d.Window, d.Length = uint16(ioctl.OpClose), rng.Uint64(), 0, 0, 0
	case 0, 1:
		d.Op, d.Handle, d.Offset = uint16(ioctl.OpMblockRead), uint64(st.read), int64(rng.IntN(blockBytes))
	case 2:
		d.Op, d.Handle, d.Length = uint16(ioctl.OpMblockWrite), uint64(st.fresh), 4096
		d.Offset = int64(d.Length)
	case 3:
		d.Op, d.Handle, d.Flags, d.Length = uint16(ioctl.OpAppend), uint64(st.app), uint8(rng.IntN(2)), uint32(rng.IntN(2000))
	case 4:
		d.Op, d.Handle, d.Flags, d.Length = uint16(ioctl.OpMDCAppend), uint64(st.mdc), uint8(rng.IntN(2)), uint32(rng.IntN(200))
	default:
		d.Op, d.Handle, d.Arena, d.Window, d.Length = uint16(ioctl.OpSync), uint64(st.app), 0, 0, 0
	}
	return d
}

// work uses the ring as it is meant to be for a while, and says whether the
// session is still there.
func (st *stage) work(n int) bool {
	for range n {
		if !st.r.ask(st.proper()) {
			st.r.take()
			if !st.alive() {
				return false
			}
		}
	}
	st.r.take()
	return st.alive()
}

// alive takes the answers that are on the socket, and says whether it is open.
func (st *stage) alive() bool {
	_ = st.w.Conn.SetReadDeadline(time.Now().Add(time.Millisecond)) // then Read fails
	for {
		n, err := st.w.Conn.Read(st.a.buf)
		if err == nil && n > 0 {
			continue
		}
		_ = st.w.Conn.SetDeadline(time.Now().Add(st.a.patience)) // then the next call fails
		return errors.Is(err, os.ErrDeadlineExceeded) && st.a.on()
	}
}
