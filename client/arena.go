package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

const page = ioctl.ArenaAlign

// errNoArena is returned when the daemon has no memory to share: data then
// travels within messages.
var errNoArena = errors.New("no arena")

// arenas are the memory shared with the daemon: asked for when it is needed,
// handed out in pages, first come first served.
type arenas struct {
	l *link

	mu sync.Mutex
	// +checklocks:mu
	list []*arena
	// +checklocks:mu
	waiters []*waiter
	// +checklocks:mu
	growing *growth // under way, or nil
	// +checklocks:mu
	closed bool
}

// growth is the making of one arena.
type growth struct {
	done chan struct{} // closed when it has ended
	err  error         // valid when done is closed
}

// arena is one memory file of the daemon's.
type arena struct {
	owner *arenas
	id    uint16
	mem   []byte
	used  []bool // by page; guarded by owner.mu
	busy  int    // pages in use; guarded by owner.mu
}

// region is a piece of an arena.
type region struct {
	arena *arena
	first int // page
	pages int
	users int // the caller and the call; guarded by arena.owner.mu
	mem   []byte
}

type waiter struct {
	pages int
	ready chan struct{} // closed when got is set
	got   *region
}

func (a *arenas) init(l *link) { a.l = l }

// window is the region as a message names it, size bytes of it.
func (r *region) window(size int) ioctl.Window {
	return ioctl.Window{Arena: r.arena.id, Offset: uint32(r.first * page), Length: uint32(size)}
}

// take returns a region of at least size bytes, which the caller drops. It
// waits for one, and asks the daemon for an arena if none is large enough. It
// fails with errNoArena, or when ctx ends.
func (a *arenas) take(ctx context.Context, size int) (*region, error) {
	pages := (size + page - 1) / page
	for {
		a.mu.Lock()
		if a.closed {
			a.mu.Unlock()
			return nil, errNoArena // the message that follows says why
		}
		if a.canHold(pages) {
			return a.takeOrWait(ctx, pages) // unlocks
		}
		g, mine := a.growing, false
		if g == nil {
			g, mine = &growth{done: make(chan struct{})}, true
			a.growing = g
		}
		a.mu.Unlock()
		if mine && !a.l.spawn(func() { a.grow(g, int64(pages)*page) }) {
			a.grown(g, nil, net.ErrClosed)
		}
		select {
		case <-g.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if mine && g.err != nil {
			return nil, fmt.Errorf("%w: %w", errNoArena, g.err)
		}
	}
}

// canHold says whether an arena has so many pages, free or not.
//
// +checklocks:a.mu
func (a *arenas) canHold(pages int) bool {
	for _, x := range a.list {
		if len(x.used) >= pages {
			return true
		}
	}
	return false
}

// takeOrWait takes a region now, or waits in turn. It unlocks mu.
//
// +checklocksrelease:a.mu
func (a *arenas) takeOrWait(ctx context.Context, pages int) (*region, error) {
	if len(a.waiters) == 0 {
		if r := a.find(pages); r != nil {
			a.mu.Unlock()
			return r, nil
		}
	}
	w := &waiter{pages: pages, ready: make(chan struct{})}
	a.waiters = append(a.waiters, w)
	a.mu.Unlock()
	select {
	case <-w.ready:
	case <-ctx.Done():
		a.mu.Lock()
		for i, x := range a.waiters {
			if x == w {
				a.waiters = append(a.waiters[:i], a.waiters[i+1:]...)
				a.serve() // who stood behind it may fit
				a.mu.Unlock()
				return nil, context.Cause(ctx)
			}
		}
		a.mu.Unlock() // it was served at the same moment
	}
	if w.got == nil {
		return nil, errNoArena // the connection is gone
	}
	return w.got, nil
}

// find takes the first run of free pages that is long enough.
//
// +checklocks:a.mu
func (a *arenas) find(pages int) *region {
	for _, x := range a.list {
		if len(x.used)-x.busy < pages {
			continue
		}
		run := 0
		for i, used := range x.used {
			if used {
				run = 0
				continue
			}
			if run++; run == pages {
				first := i + 1 - pages
				for j := first; j <= i; j++ {
					x.used[j] = true
				}
				x.busy += pages
				mem := x.mem[first*page : (i+1)*page : (i+1)*page]
				return &region{arena: x, first: first, pages: pages, users: 1, mem: mem}
			}
		}
	}
	return nil
}

// serve gives the waiters what there is, in their order.
//
// +checklocks:a.mu
func (a *arenas) serve() {
	for len(a.waiters) > 0 {
		w := a.waiters[0]
		if w.got = a.find(w.pages); w.got == nil {
			return
		}
		a.waiters = a.waiters[1:]
		close(w.ready)
	}
}

// keep adds a user to a region.
func (r *region) keep() {
	a := r.arena.owner
	a.mu.Lock()
	defer a.mu.Unlock()
	r.users++
}

// drop ends a use of a region; the last one frees it.
func (r *region) drop() {
	a := r.arena.owner
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.users--; r.users > 0 {
		return
	}
	x := r.arena
	for i := r.first; i < r.first+r.pages; i++ {
		x.used[i] = false
	}
	x.busy -= r.pages
	if a.closed {
		x.unmapIdle()
		return
	}
	a.serve()
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
		return
	}
	a.list = append(a.list, x)
	if a.closed {
		x.unmapIdle()
	}
}

// ask gets one arena.
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
	mem, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
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
		return nil, errors.Join(err, unix.Munmap(mem))
	}
	return x, nil
}

// close lets go of all memory, as soon as nobody uses it.
func (a *arenas) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for _, x := range a.list {
		x.unmapIdle()
	}
	for _, w := range a.waiters {
		close(w.ready)
	}
	a.waiters = nil
}

// unmapIdle unmaps the arena if no page of it is in use. The caller holds
// owner.mu.
func (x *arena) unmapIdle() {
	if x.busy == 0 && x.mem != nil {
		_ = unix.Munmap(x.mem) //nolint:errcheck // fails only for what is not mapped
		x.mem = nil
	}
}
