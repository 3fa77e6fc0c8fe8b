package hostile

import (
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// beside calls f again and again, on several threads, until the returned
// function is called.
func beside(threads int, f func(thread int)) (stop func()) {
	var over atomic.Bool
	var wg sync.WaitGroup
	for i := range threads {
		wg.Go(func() {
			for !over.Load() {
				f(i)
			}
		})
	}
	return func() {
		over.Store(true)
		wg.Wait()
	}
}

// xorshift is a generator for one thread, fast enough to be in the way.
type xorshift uint64

func (x *xorshift) next() uint64 {
	*x ^= *x << 13
	*x ^= *x >> 7
	*x ^= *x << 17
	return uint64(*x)
}

// ringScribble writes over parts of a ring, or all of it, from other threads,
// while it is used.
func ringScribble(a *attacker) {
	st := a.stage(64)
	if st == nil {
		return
	}
	defer st.close()
	r := st.r
	end := int(r.data())
	low, high, only := 0, len(r.mem), -1
	switch a.rng.IntN(6) {
	case 0: // one word
		only = words[a.rng.IntN(len(words))]
	case 1: // descriptors
		low, high = descriptorsAt, descriptorsAt+64*ring.DescriptorSize
	case 2: // completions
		low, high = descriptorsAt+64*ring.DescriptorSize, end
	case 3: // buffers
		low = end
	case 4: // what is nobody's, and all words
		high = descriptorsAt
	}
	seeds := [2]xorshift{xorshift(a.rng.Uint64() | 1), xorshift(a.rng.Uint64() | 1)}
	defer beside(2, func(i int) {
		x := seeds[i].next()
		at := low + int(x>>33)%(high-low)&^3
		if only >= 0 {
			at = only
		}
		r.word(at).Store(uint32(x) >> (x >> 59))
		seeds[i].next()
	})()
	for range 50 {
		if !st.work(64) {
			return
		}
	}
}

// ringCounters lies about what was submitted and seen.
func ringCounters(a *attacker) {
	entries := 2 << a.rng.IntN(8)
	st := a.stage(entries)
	if st == nil {
		return
	}
	defer st.close()
	r := st.r
	if !st.work(a.rng.IntN(100)) {
		return
	}
	n := uint32(entries)
	for _, at := range []int{submittedAt, seenAt} {
		if a.rng.IntN(2) == 0 {
			continue
		}
		w := r.word(at)
		by := []uint32{1, 2, n, n + 1, 1 << 31, 1<<31 + 1, ^uint32(0), -n, -n - 1, a.rng.Uint32()}
		w.Add(by[a.rng.IntN(len(by))])
	}
	r.word(bellAt).Store(0)
	r.wake()
	for range 20 {
		if !st.alive() {
			return
		}
		// What was skipped over is whatever lies there.
		r.word(submittedAt).Add(uint32(a.rng.IntN(2)))
		r.word(bellAt).Store(0)
		r.wake()
		if a.rng.IntN(2) == 0 {
			r.take()
		}
	}
}

// ringDescriptors asks for anything: every operation, any handle, windows
// outside, misaligned, over the ring itself; and rewrites what it has asked for.
func ringDescriptors(a *attacker) {
	st := a.stage(64)
	if st == nil {
		return
	}
	defer st.close()
	other := a.stage(2)
	handles := []uint64{0, 1, uint64(st.read), uint64(st.fresh), uint64(st.app), uint64(st.mdc), uint64(st.pool), 1<<64 - 1}
	if other != nil {
		handles = append(handles, uint64(other.read), uint64(other.app))
		defer other.close()
	}
	ops := []ioctl.Op{
		ioctl.OpMblockRead, ioctl.OpMblockWrite, ioctl.OpAppend, ioctl.OpMDCAppend, ioctl.OpSync, ioctl.OpMDCSync,
		ioctl.OpMblockAlloc, ioctl.OpMblockPut, ioctl.OpObjectCommit, ioctl.OpClose,
	}
	wild := a.rng.IntN(4) == 0 // breaks the protocol soon
	r := st.r
	seed := xorshift(a.rng.Uint64() | 1)
	if a.rng.IntN(2) == 0 {
		defer beside(1, func(int) { // the same slots are written again while they are taken
			x := seed.next()
			r.slot(uint32(x >> 40))[2+x>>8%3].Store(handles[x%uint64(len(handles))])
		})()
	}
	for i := range 2000 {
		d := st.proper()
		switch a.rng.IntN(5) {
		case 0: // over the ring itself
			d.Window, d.Length = uint32(a.rng.IntN(4))*4096, uint32(a.rng.IntN(20_000))
		case 1:
			d.Handle = handles[a.rng.IntN(len(handles))]
		case 2:
			d.Window, d.Length = uint32(a.number()), uint32(a.number())
		case 3:
			d.Arena, d.Offset = uint16(1+a.rng.IntN(6)), int64(a.number())
		default:
			d.Op, d.Handle = uint16(ops[a.rng.IntN(len(ops))]), handles[a.rng.IntN(len(handles))]
		}
		a.refit(d)
		if wild && a.rng.IntN(20) == 0 {
			d.Op, d.Flags = uint16(a.rng.IntN(2*ioctl.NumOps)), uint8(a.rng.Uint32())
		}
		for !r.ask(d) {
			r.take()
			if !st.alive() {
				return
			}
		}
		if wild && a.rng.IntN(200) == 0 {
			r.slot(r.put)[a.rng.IntN(8)].Store(a.rng.Uint64())
			r.put++
			r.word(submittedAt).Store(r.put)
		}
		if i%32 == 31 && !st.alive() {
			return
		}
	}
}

// refit takes out of a descriptor what its operation does not take: that would be
// the end of the session.
func (a *attacker) refit(d *ring.Descriptor) {
	switch ioctl.Op(d.Op) { //nolint:exhaustive // the others take what all do
	case ioctl.OpSync, ioctl.OpMDCSync, ioctl.OpClose:
		*d = ring.Descriptor{Op: d.Op, Tag: d.Tag, Handle: d.Handle}
	case ioctl.OpObjectCommit:
		*d = ring.Descriptor{Op: d.Op, Tag: d.Tag, Handle: d.Handle}
		if a.rng.IntN(2) == 0 {
			d.Flags, d.Offset = ring.FlagChained, int64(a.number())
		}
	case ioctl.OpMblockAlloc, ioctl.OpMblockPut:
		d.Flags = uint8(a.rng.IntN(4)) * ring.FlagFallback
		d.Class, d.Owner, d.Label = uint8(a.rng.IntN(3)), uint32(a.rng.IntN(2)), a.rng.Uint64()
		if a.rng.IntN(4) == 0 {
			d.Class, d.Owner, d.Offset = uint8(a.rng.Uint32()), a.rng.Uint32(), int64(a.number())
		}
		if d.Op == uint16(ioctl.OpMblockAlloc) {
			d.Arena, d.Window, d.Length = 0, 0, 0
		} else if a.puts++; a.puts > mostPuts {
			d.Offset = -1
		}
	case ioctl.OpMblockRead, ioctl.OpMblockWrite:
		d.Flags, d.Class, d.Owner, d.Label = 0, 0, 0, 0
		if d.Op == uint16(ioctl.OpMblockWrite) && a.rng.IntN(2) == 0 {
			d.Flags = ring.FlagChained
		}
	default:
		d.Flags, d.Offset, d.Class, d.Owner, d.Label = d.Flags&ring.FlagSync, 0, 0, 0, 0
	}
}

// ringBells rings without end, on several threads and in another process, with
// nothing to be had, or with anything in the bell.
func ringBells(a *attacker) {
	st := a.stage(64)
	if st == nil {
		return
	}
	defer st.close()
	r := st.r
	for at := 2 * r.data(); at < 8*r.data(); at += r.data() { // all that there may be, and one more
		_ = r.open(st.w, at) // it may be one too many
	}
	// Its mapping is not writable: that is refused.
	child := exec.CommandContext(a.ctx, "/proc/self/exe")
	child.Env = append(os.Environ(), envRole+"=ringer")
	child.ExtraFiles = []*os.File{os.NewFile(uintptr(dup(r.fd)), "arena")}
	if err := child.Start(); err == nil {
		defer func() {
			_ = child.Process.Kill() // it may have ended
			_ = child.Wait()         // "signal: killed" is what is wanted
		}()
	}
	check(child.ExtraFiles[0].Close())
	kind := a.rng.IntN(3)
	seeds := [2]xorshift{xorshift(a.rng.Uint64() | 1), xorshift(a.rng.Uint64() | 1)}
	defer beside(2, func(i int) {
		for at := 0; at < len(r.mem)-4096; at += int(r.data()) {
			switch kind {
			case 0:
				r.word(at + bellAt).Store(uint32(seeds[i].next()))
			case 1:
				r.word(at + bellAt).Store(uint32(seeds[i].next() & 1))
			}
			futexWake(unsafe.Pointer(&r.mem[at+bellAt]))
		}
	})()
	for range 20 {
		if !st.work(a.rng.IntN(3)) {
			return
		}
		select {
		case <-a.ctx.Done():
		case <-time.After(20 * time.Millisecond): // a while without anything in the ring
		}
	}
}

func dup(fd int) int {
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	check(err)
	return fd
}

// ringerMain wakes who waits for the words of a ring that is descriptor 3.
func ringerMain() {
	mem, err := unix.Mmap(3, 0, ringArena, unix.PROT_READ, unix.MAP_SHARED)
	check(err)
	if _, err := unix.Mmap(3, 0, ringArena, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		panic("a sealed arena was mapped for writing")
	}
	for end := time.Now().Add(10 * soon); time.Now().Before(end); {
		for range 1000 {
			for _, at := range words {
				futexWake(unsafe.Pointer(&mem[at]))
			}
		}
	}
}

// ringStorm makes and ends rings, in arenas that are not mapped, over each
// other, more than there may be, and with requests in them.
func ringStorm(a *attacker) {
	st := a.stage(8)
	if st == nil {
		return
	}
	defer st.close()
	r, w := st.r, st.w
	if _, fd, err := w.Arena(ringArena); err == nil { // which is never mapped
		defer unix.Close(fd)
	}
	for range 200 {
		_ = w.Conn.SetDeadline(time.Now().Add(10 * soon)) // then the next call fails
		st.work(a.rng.IntN(8))
		m := &ioctl.RingAsk{
			Version: ring.Version, Arena: r.arena, Offset: uint32(a.rng.IntN(ringArena/4096)) * 4096, Entries: 2 << a.rng.IntN(7),
		}
		switch a.rng.IntN(8) {
		case 0:
			m.Arena = uint16(a.rng.IntN(4))
		case 1:
			m.Offset, m.Entries = uint32(a.number()), uint32(a.number())
		case 2:
			m.Version = uint16(a.rng.IntN(3))
		case 3:
			m.Offset = 0 // over the one that is used
		}
		st.throw(ioctl.OpRing, m)
		st.throw(ioctl.OpRingClose, &ioctl.RingClose{Ring: uint16(a.rng.IntN(ioctl.MaxRings + 2))})
		if a.rng.IntN(4) == 0 {
			st.throw(ioctl.OpCancel, &ioctl.Cancel{Tag: st.tag - uint64(a.rng.IntN(9))})
		}
		if !st.alive() {
			return
		}
	}
}

// throw sends a request whose answer is not looked at.
func (st *stage) throw(op ioctl.Op, m ioctl.Message) {
	st.tag++
	st.a.throw(st.w, st.a.message(op, st.tag, m), nil)
}

// ringMemory does to its memory what may be done and what may not, while it is
// used.
func ringMemory(a *attacker) {
	st := a.stage(64)
	if st == nil {
		return
	}
	defer st.close()
	r := st.r
	again := func(prot int) []byte {
		mem, err := unix.Mmap(r.fd, 0, ringArena, prot, unix.MAP_SHARED)
		if err == nil && prot&unix.PROT_WRITE != 0 {
			panic("a sealed arena was mapped for writing")
		}
		return mem
	}
	if mem := again(unix.PROT_READ); mem != nil {
		defer unix.Munmap(mem) // fails only for what is not mapped
		if unix.Mprotect(mem, unix.PROT_READ|unix.PROT_WRITE) == nil {
			panic("a mapping of a sealed arena was made writable")
		}
	}
	stop := beside(1, func(int) {
		const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
		for _, err := range []error{
			unix.Ftruncate(r.fd, 4096), unix.Ftruncate(r.fd, 2*ringArena), unix.Fallocate(r.fd, punch, 0, ringArena),
			unix.Fallocate(r.fd, unix.FALLOC_FL_ZERO_RANGE, 0, ringArena), unix.Madvise(r.mem, unix.MADV_REMOVE),
		} {
			if err == nil {
				panic("a sealed arena was changed by its descriptor")
			}
		}
		if n, err := unix.Pwrite(r.fd, make([]byte, 100), 0); err == nil {
			panic(n)
		}
		again(unix.PROT_READ | unix.PROT_WRITE)
		// Its own pages it may throw away: they come back from the file.
		_ = unix.Madvise(r.mem, unix.MADV_DONTNEED) // it may be refused
		_ = unix.Madvise(r.mem, unix.MADV_PAGEOUT)  // it may be refused
		_ = unix.Msync(r.mem, unix.MS_SYNC)         // it may be refused
	})
	alive := true
	for range 30 {
		if alive = st.work(64); !alive {
			break
		}
	}
	stop()
	if !alive {
		return
	}
	for r.ask(st.proper()) { // as many as there is room for
	}
	switch a.rng.IntN(3) {
	case 0:
		check(unix.Mprotect(r.mem, unix.PROT_NONE))
		st.alive()
		check(unix.Mprotect(r.mem, unix.PROT_READ|unix.PROT_WRITE))
	case 1:
		check(unix.Munmap(r.mem))
		r.mem = nil
	}
	st.alive()
}

// ringObjects closes, commits, aborts and deletes what the ring is at work on.
func ringObjects(a *attacker) {
	st := a.stage(64)
	if st == nil {
		return
	}
	defer st.close()
	handles := []ioctl.Handle{st.read, st.fresh, st.app, st.mdc, st.fresh, st.read, st.pool}
	for i := range 400 {
		if !st.r.ask(st.proper()) {
			st.r.take()
		}
		if i%16 != 15 {
			continue
		}
		target := &ioctl.Target{Handle: handles[a.rng.IntN(len(handles))]}
		op := []ioctl.Op{
			ioctl.OpObjectCommit, ioctl.OpObjectAbort, ioctl.OpObjectDelete, ioctl.OpClose, ioctl.OpMDCCompactStart, ioctl.OpMDCCompactEnd,
		}[a.rng.IntN(6)]
		if op == ioctl.OpClose && a.rng.IntN(4) > 0 {
			op = ioctl.OpObjectInfo
		}
		st.throw(op, target)
		if !st.alive() {
			return
		}
	}
}

// ringUnread lets all its descriptors fail and reads no answer; and takes no
// completion.
func ringUnread(a *attacker) {
	st := a.stage(512)
	if st == nil {
		return
	}
	defer st.close()
	r := st.r
	for end := time.Now().Add(2 * soon); time.Now().Before(end) && a.on(); {
		d := st.proper()
		if a.rng.IntN(4) > 0 {
			d.Handle = 1
		}
		if !r.ask(d) {
			r.wake()
			time.Sleep(time.Millisecond) // it stays full
		}
	}
}

// ringLanes gives up handles that there are not, of one number after another, and
// allocates in each before that is answered.
func ringLanes(a *attacker) {
	st := a.stage(512)
	if st == nil {
		return
	}
	defer st.close()
	for h := uint64(st.pool); a.on(); h += 1 << 32 {
		for _, op := range []ioctl.Op{ioctl.OpClose, ioctl.OpMblockAlloc} {
			st.tag++
			a.sent.Add(1)
			for !st.r.ask(&ring.Descriptor{Op: uint16(op), Tag: st.tag, Handle: h}) {
				st.r.take()
				if !st.alive() {
					return
				}
			}
		}
	}
}

// ringReads keeps a ring full of reads, and takes the answers: a greedy client
// that is not hostile.
func ringReads(a *attacker) {
	st := a.stage(256)
	if st == nil {
		return
	}
	defer st.close()
	for a.on() {
		st.tag++
		d := &ring.Descriptor{
			Op: uint16(ioctl.OpMblockRead), Handle: uint64(st.read), Tag: st.tag, Arena: st.r.arena, Window: st.r.data(), Length: 4096,
		}
		a.sent.Add(1)
		if !st.r.ask(d) {
			st.r.take()
			time.Sleep(50 * time.Microsecond) // it sleeps as others do, by the clock
		}
	}
}
