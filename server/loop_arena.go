package server

import (
	"log/slog"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// ringArena is an arena that a session's rings use. It is in use as long as the
// session has rings, so that a descriptor costs no lock.
type ringArena struct {
	arena *arena
	mem   []byte
	id    bdev.BufferID // registered with the loop's queue, or 0
	plain bool          // it is not, and will not be
}

// window returns the memory that a descriptor names.
func (set *ringSet) window(d *ring.Descriptor) ([]byte, error) {
	if d.Arena == 0 {
		return nil, nil
	}
	a, err := set.arena(d.Arena)
	if err != nil {
		return nil, err
	}
	switch end := uint64(d.Window) + uint64(d.Length); {
	case d.Window%ioctl.ArenaAlign != 0:
		return nil, api.Errorf(api.EINVAL, "", "offset %d into the arena is no multiple of %d", d.Window, ioctl.ArenaAlign)
	case end > uint64(len(a.mem)):
		return nil, api.Errorf(api.EINVAL, "", "%d bytes at %d are outside the arena of %d", d.Length, d.Window, len(a.mem))
	default:
		return a.mem[d.Window:end:end], nil
	}
}

// arena returns an arena of the session's by its number.
func (set *ringSet) arena(number uint16) (*ringArena, error) {
	if int(number) < len(set.arenas) && set.arenas[number] != nil {
		return set.arenas[number], nil
	}
	a := set.s.arena(number)
	if a == nil {
		return nil, api.Errorf(api.EINVAL, "", "no arena %d", number)
	}
	mem, err := a.use(ioctl.Window{Arena: number, Length: uint32(a.size)})
	if err != nil {
		return nil, err
	}
	for len(set.arenas) <= int(number) {
		set.arenas = append(set.arenas, nil)
	}
	ra := &ringArena{arena: a, mem: mem}
	set.arenas[number] = ra
	set.register(ra)
	return ra, nil
}

// register registers an arena with the loop's queue, when its pages are in the
// daemon's table: it is not the loop that waits for those.
func (set *ringSet) register(a *ringArena) {
	l := set.loop
	if r, ok := l.queue.(bdev.Registrar); !ok || r == nil {
		l.leavePlain(a)
		return
	}
	a.arena.useAgain()
	set.s.requests.Add(1)
	go func() {
		set.s.srv.remap(func() { populate(a.mem) })
		over := func() {
			a.arena.unuse()
			set.s.requests.Done()
		}
		if !l.do(func() { l.register(set, a); over() }) {
			over()
		}
	}()
}

// populate puts the pages of shared memory into the process's table.
func populate(mem []byte) {
	// Kernels before 5.14 do so one page after another, when they are touched.
	_ = unix.Madvise(mem, unix.MADV_POPULATE_WRITE) //nolint:errcheck // see above
}

// register ends what set.register began, if the arena is still used.
func (l *ioLoop) register(set *ringSet, a *ringArena) {
	if !set.uses(a) {
		return
	}
	id, err := bdev.BufferID(0), bdev.ErrNotRegistered
	if !l.test.noRegister {
		id, err = bdev.RegisterBuffer(l.queue, a.mem)
	}
	if err != nil {
		l.leavePlain(a)
		if !l.unfixed {
			l.unfixed = true
			l.srv.log.Warn("arenas are not registered with the kernel: I/O costs more; is RLIMIT_MEMLOCK too low?",
				slog.Int("loop", l.index), slog.Any("error", err))
		}
		return
	}
	a.id = id
	l.count.registered.Add(1)
}

// leavePlain says that an arena is used as any memory.
func (l *ioLoop) leavePlain(a *ringArena) {
	a.plain = true
	l.count.plain.Add(1)
}

func (set *ringSet) uses(a *ringArena) bool { return slices.Contains(set.arenas, a) }

// dropArena ends the rings' use of an arena, with no I/O under way on it.
func (l *ioLoop) dropArena(a *ringArena) {
	if a.plain {
		l.count.plain.Add(-1)
	}
	if a.id == 0 {
		a.arena.unuse()
		return
	}
	l.count.registered.Add(-1)
	r, _ := l.queue.(bdev.Registrar) // it gave the id
	if err := r.UnregisterBuffer(a.id); err != nil {
		l.srv.log.Error("arena stays registered", slog.Int("loop", l.index), slog.Any("error", err))
	}
	a.arena.unuse()
}
