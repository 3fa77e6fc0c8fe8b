package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/mpool-go/mpool/ioctl"
)

const page = ioctl.ArenaAlign

// errNoArena is returned when the daemon has no memory to share: data then
// travels within messages.
var errNoArena = errors.New("no arena")

// arenas are memory shared with the daemon: asked for when it is needed, handed
// out in pages, first come first served. A link has two sets: one for data of
// calls, which is held no longer than a call, and one for what the program
// borrows, which is held for as long as it likes.
type arenas struct {
	l    *link
	most int64 // bytes that it grows to because callers wait; more only for one that is larger

	mu sync.Mutex
	// +checklocks:mu
	list []*arena
	// +checklocks:mu
	waiters []*waiter
	// +checklocks:mu
	growing *growth // under way, or nil
	// +checklocks:mu
	refused bool // the daemon gave no arena when callers waited
	// +checklocks:mu
	closed bool
}

// arena is one memory file of the daemon's.
type arena struct {
	owner *arenas
	id    uint16
	mem   []byte
	used  []bool // by page; guarded by owner.mu
	busy  int    // pages in use; guarded by owner.mu
	kept  bool   // for one region alone; guarded by owner.mu
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

func (a *arenas) init(l *link, most int64) { a.l, a.most = l, most }

// window is the region as a message names it, size bytes of it.
func (r *region) window(size int) ioctl.Window {
	return ioctl.Window{Arena: r.arena.id, Offset: uint32(r.first * page), Length: uint32(size)}
}

// take returns a region of at least size bytes, which the caller drops. It
// waits for one, and asks the daemon for an arena if none is large enough. It
// fails with errNoArena, or when ctx ends. A caller that holds a region of these
// arenas must not take another one: all might wait for each other.
func (a *arenas) take(ctx context.Context, size int) (*region, error) {
	pages := pagesOf(size)
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
			g, mine = a.growth(), true
		}
		a.mu.Unlock()
		if mine {
			a.start(g, int64(pages)*page)
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

// try returns a region of at least size bytes if there is one now and nobody
// waits, else nil.
func (a *arenas) try(size int) *region {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || len(a.waiters) > 0 {
		return nil
	}
	return a.find(pagesOf(size))
}

func pagesOf(size int) int { return (size + page - 1) / page }

// canHold says whether an arena has so many pages, free or not.
//
// +checklocks:a.mu
func (a *arenas) canHold(pages int) bool {
	for _, x := range a.list {
		if len(x.used) >= pages && !x.kept {
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
	g := a.pressed()
	a.mu.Unlock()
	if g != nil {
		a.start(g, 0)
	}
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

// keep adds an arena, as one region that the caller drops: nobody else's data
// goes there.
func (a *arenas) keep(x *arena) *region {
	a.mu.Lock()
	defer a.mu.Unlock()
	x.kept = true
	for i := range x.used {
		x.used[i] = true
	}
	x.busy = len(x.used)
	a.list = append(a.list, x)
	return &region{arena: x, pages: len(x.used), users: 1, mem: x.mem}
}

// give drops the region of an arena that was kept: it is for anybody from now
// on.
func (r *region) give() {
	a := r.arena.owner
	a.mu.Lock()
	r.arena.kept = false
	a.mu.Unlock()
	r.drop()
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
		unmap(x.mem)
		x.mem = nil
	}
}
