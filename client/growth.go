package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// growth is the making of one arena.
type growth struct {
	done chan struct{} // closed when it has ended
	err  error         // valid when done is closed
}

// growth makes a growth, of which there is one at a time. Start begins it.
//
// +checklocks:a.mu
func (a *arenas) growth() *growth {
	a.growing = &growth{done: make(chan struct{})}
	return a.growing
}

// pressed makes a growth for callers who wait, if there may be one.
//
// +checklocks:a.mu
func (a *arenas) pressed() *growth {
	if a.growing != nil || a.refused || a.closed {
		return nil
	}
	have := int64(a.l.limits.ArenaDefault)
	for _, x := range a.list {
		if !x.kept {
			have += int64(len(x.used)) * page
		}
	}
	if have > a.most {
		return nil
	}
	return a.growth()
}

// start begins a growth by an arena of at least size bytes.
func (a *arenas) start(g *growth, size int64) {
	if !a.l.spawn(func() { a.grow(g, size) }) {
		a.grown(g, nil, net.ErrClosed)
	}
}

// grow asks the daemon for an arena of at least size bytes. Asked for, it must
// be mapped or it is of no use to anybody: no caller's context counts, and no
// caller waits for it longer than its own.
func (a *arenas) grow(g *growth, size int64) {
	ctx, cancel := polite()
	defer cancel()
	x, err := a.ask(ctx, max(size, int64(a.l.limits.ArenaDefault)))
	a.grown(g, x, err)
}

// grown ends a growth, with an arena or without.
func (a *arenas) grown(g *growth, x *arena, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.growing = nil
	g.err = err
	close(g.done)
	if x == nil {
		a.refused = a.refused || len(a.waiters) > 0
		return
	}
	a.list = append(a.list, x)
	if a.closed {
		x.unmapIdle()
		return
	}
	a.serve()
}

// growBy makes these arenas grow by the first of some sizes in bytes that the
// daemon agrees to, or waits for a growth that is under way. It says whether
// there is more room now.
func (a *arenas) growBy(ctx context.Context, sizes []int64) (bool, error) {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return false, unsent(ioctl.OpArena, a.l.why())
	}
	g, mine := a.growing, false
	if g == nil {
		g, mine = a.growth(), true
	}
	a.mu.Unlock()
	if mine && !a.l.spawn(func() { a.growFirst(g, sizes) }) {
		a.grown(g, nil, unsent(ioctl.OpArena, net.ErrClosed))
	}
	select {
	case <-g.done:
	case <-ctx.Done():
		return false, expired(ctx, ioctl.OpArena.Name())
	}
	return g.err == nil || !mine, g.err
}

// growFirst is grow by the first size that the daemon agrees to.
func (a *arenas) growFirst(g *growth, sizes []int64) {
	ctx, cancel := polite()
	defer cancel()
	var x *arena
	var err error
	for _, size := range sizes {
		if x, err = a.ask(ctx, size); err == nil {
			break
		}
	}
	a.grown(g, x, err)
}

// ask gets one arena, which it does not put into the list.
func (a *arenas) ask(ctx context.Context, size int64) (*arena, error) {
	reply := &ioctl.ArenaReply{}
	fd, err := a.l.exchangeFD(ctx, ioctl.OpArena, &ioctl.ArenaAsk{Size: uint64(size)}, reply, nil, nil)
	if err != nil {
		return nil, err
	}
	defer closeFD(fd)
	if fd < 0 || reply.Size != uint64(size) || reply.Arena == 0 {
		return nil, &api.Error{Code: api.EPROTO, Op: ioctl.OpArena.Name(), Detail: "the daemon's arena is not as asked for"}
	}
	mem, err := mapShared(fd, int(size))
	if err != nil {
		return nil, fmt.Errorf("map arena: %w", err)
	}
	x := &arena{owner: a, id: reply.Arena, mem: mem, used: make([]bool, size/page)}
	// A child must not write into its parent's requests.
	err = unix.Madvise(mem, unix.MADV_DONTFORK)
	if err == nil {
		err = a.l.do(ctx, ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: reply.Arena}, &ioctl.Empty{})
	}
	if err != nil {
		unmap(mem)
		return nil, err
	}
	return x, nil
}

// hugePage is the size of a huge page in bytes, where there are any.
const hugePage = 2 << 20

// mapShared maps a memory file. One that has room for huge pages lies as they
// must lie, and asks for them: whether it gets them is the system's decision.
func mapShared(fd, size int) ([]byte, error) {
	const prot = unix.PROT_READ | unix.PROT_WRITE
	if size < hugePage {
		at, err := unix.MmapPtr(fd, 0, nil, uintptr(size), prot, unix.MAP_SHARED)
		if err != nil {
			return nil, err
		}
		return unsafe.Slice((*byte)(at), size), nil
	}
	// Some room to lie in, of which the ends are given back.
	room := uintptr(size) + hugePage
	base, err := unix.MmapPtr(-1, 0, nil, room, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	head := -uintptr(base) & (hugePage - 1)
	at := unsafe.Add(base, head)
	if _, err := unix.MmapPtr(fd, 0, at, uintptr(size), prot, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
		return nil, errors.Join(err, unix.MunmapPtr(base, room))
	}
	if head > 0 {
		_ = unix.MunmapPtr(base, head) //nolint:errcheck // fails only for what is not mapped
	}
	tail := (uintptr(size) + page - 1) &^ (page - 1)
	_ = unix.MunmapPtr(unsafe.Add(at, tail), hugePage-head) //nolint:errcheck // the same
	mem := unsafe.Slice((*byte)(at), size)
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE) //nolint:errcheck // small pages serve as well, slower
	return mem, nil
}

// unmap ends a mapping of mapShared's.
func unmap(mem []byte) {
	_ = unix.MunmapPtr(unsafe.Pointer(&mem[0]), uintptr(len(mem))) //nolint:errcheck // fails only for what is not mapped
}
