package hostile

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// arenas asks for memory and does with it what it should not: not map it, say
// so twice, cut it, punch holes into it, name bytes outside of it.
func arenas(a *attacker) {
	w, pool := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	b := a.give(w, ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 20}})
	for range 6 { // more than there may be
		a.sent.Add(1)
		arena, fd, err := w.Arena(1 << 20)
		if err != nil {
			continue
		}
		a.spoil(fd, int64(arena.Size))
		for range a.rng.IntN(4) {
			_, _ = a.ask(w, ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: arena.Arena}) // it should fail
			a.spoil(fd, int64(arena.Size))
			window := ioctl.Window{Arena: arena.Arena, Offset: uint32(a.rng.IntN(512)) * 4096, Length: uint32(a.rng.IntN(2 << 20))}
			if a.rng.IntN(4) == 0 {
				window = ioctl.Window{Arena: uint16(1 + a.rng.IntN(9)), Offset: uint32(a.number()), Length: uint32(a.number())}
			}
			// it may fail
			_, _ = a.ask(w, ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: b, Data: ioctl.Payload{Window: window}})
			_, _ = a.ask(w, ioctl.OpMblockRead, &ioctl.MblockRead{Mblock: b, Into: window}) // it may fail
		}
		check(unix.Close(fd))
		_ = w.Conn.SetDeadline(time.Now().Add(soon)) // then the next call fails
	}
}

// spoil tries to take from a memory file what is there.
func (a *attacker) spoil(fd int, size int64) {
	switch a.rng.IntN(6) {
	case 0:
		_ = unix.Ftruncate(fd, size/2) // it should fail
	case 1:
		_ = unix.Ftruncate(fd, 2*size) // it should fail
	case 2:
		const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
		_ = unix.Fallocate(fd, punch, 0, size) // it should fail
	case 3:
		_, _ = unix.Pwrite(fd, a.bytes(100), 0) // it should fail
	case 4:
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE) // it should fail
	}
}

// scribble changes memory all the time that the daemon works on it.
func scribble(a *attacker) {
	w, pool := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	a.sent.Add(1)
	arena, mem, err := w.Mapped(1 << 20)
	if err != nil {
		return
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				mem[i*64%len(mem)]++
			}
		}
	}()
	defer func() {
		close(stop)
		<-stopped
		check(unix.Munmap(mem))
	}()
	whole := ioctl.Window{Arena: arena, Length: 1 << 20}
	record := ioctl.Window{Arena: arena, Length: 100_000}
	for range 10 {
		_ = w.Conn.SetDeadline(time.Now().Add(10 * soon)) // then the next call fails
		alloc := &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 20}}
		b, l := a.give(w, ioctl.OpMblockAlloc, alloc), a.give(w, ioctl.OpMlogAlloc, alloc)
		for _, x := range []struct {
			op ioctl.Op
			m  ioctl.Message
		}{
			{ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: b, Data: ioctl.Payload{Window: whole}}},
			{ioctl.OpObjectCommit, &ioctl.Target{Handle: b}},
			{ioctl.OpMblockRead, &ioctl.MblockRead{Mblock: b, Into: whole}},
			{ioctl.OpObjectDelete, &ioctl.Target{Handle: b}},
			{ioctl.OpObjectCommit, &ioctl.Target{Handle: l}},
		} {
			_, _ = a.ask(w, x.op, x.m) // it may fail
		}
		app := a.give(w, ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: l})
		if app == 0 {
			return
		}
		// it may fail
		_, _ = a.ask(w, ioctl.OpAppend, &ioctl.AppendRecord{To: app, Sync: true, Data: ioctl.Payload{Window: record}})
		// Roots are read out of memory that changes.
		// it should fail
		_, _ = a.ask(w, ioctl.OpRootsSet, &ioctl.RootsSet{Pool: pool, Roots: ioctl.Payload{Window: ioctl.Window{Arena: arena, Length: 4000}}})
		_, _ = a.ask(w, ioctl.OpClose, &ioctl.Target{Handle: app})      // it may fail
		_, _ = a.ask(w, ioctl.OpObjectDelete, &ioctl.Target{Handle: l}) // it may fail
		if !a.on() {
			return
		}
	}
}
