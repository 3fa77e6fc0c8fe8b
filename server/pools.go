package server

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// activePool is a pool that is active in this daemon.
type activePool struct {
	pool    Pool
	feed    *feed
	ops     counters
	handles atomic.Int64  // of all sessions
	grown   atomic.Uint64 // its MemoryGrowths when that was charged

	ownership ownership
	quotas    atomic.Pointer[quotas] // nil: a pool of a kind that has none
	credits   *creditor

	sweeping sync.Mutex // held by a sweep; see the package's comment
	orphans  atomic.Int64

	mu sync.Mutex
	// +checklocks:mu
	name string
	// +checklocks:mu
	opens int // handles on the pool itself
	// +checklocks:mu
	busy bool // an administrator is changing it
	// +checklocks:mu
	leaving bool // it is being deactivated: no opens
	// +checklocks:mu
	left bool // it is active no more, whatever the name stands for now
	// +checklocks:mu
	adopters map[layout.ObjectID]*session // of uncommitted objects
	// +checklocks:mu
	own map[*session]map[layout.ObjectID]struct{} // the same, by session
	// +checklocks:mu
	orphaned map[layout.ObjectID]*session // uncommitted objects of sessions that ended
	// +checklocks:mu
	fates map[layout.ObjectID]chan struct{} // of adopted ones, for who waits; closed when they are settled
	// +checklocks:mu
	grants grants
}

func newActivePool(ctx context.Context, srv *Server, p Pool, f *feed) (*activePool, error) {
	name := p.Name()
	f.rename(name)
	a := &activePool{
		pool: p, feed: f, name: name,
		adopters: make(map[layout.ObjectID]*session),
		own:      make(map[*session]map[layout.ObjectID]struct{}),
		orphaned: make(map[layout.ObjectID]*session),
		fates:    make(map[layout.ObjectID]chan struct{}),
		grants:   newGrants(),
	}
	var err error
	a.credits, err = newCreditor(ctx, srv, a)
	return a, err
}

// open counts a handle on the pool.
func (a *activePool) open() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.left:
		return api.Errorf(api.ENOENT, "", "no active pool %q", a.name)
	case a.leaving:
		return api.Errorf(api.EBUSY, "", "the pool is being deactivated")
	}
	a.opens++
	return nil
}

// closed counts one out.
func (a *activePool) closed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opens--
}

// begin lets one administrator change the pool that was found under the name;
// it may have been renamed or have left since. With alone nobody may have it
// open.
func (a *activePool) begin(name string, alone bool) error {
	if err := a.claim(name, alone); err != nil {
		return err
	}
	if alone {
		// A sweep under way has a reference now and then; none begins any more.
		a.sweeping.Lock()
		a.sweeping.Unlock() //nolint:staticcheck // it has waited
	}
	return nil
}

func (a *activePool) claim(name string, alone bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.left, a.name != name:
		return api.Errorf(api.ENOENT, "", "no active pool %q", name)
	case a.busy:
		return api.Errorf(api.EBUSY, "", "another administrator is changing the pool; try again")
	case alone && a.opens > 0:
		return api.Errorf(api.EBUSY, "", "%d clients have the pool open; end them first", a.opens)
	}
	a.busy, a.leaving = true, alone
	return nil
}

// end ends the change. If the pool stays, it sweeps what was not swept meanwhile.
func (a *activePool) end(srv *Server) {
	a.mu.Lock()
	var ids []layout.ObjectID
	if a.leaving && !a.left {
		ids = slices.Collect(maps.Keys(a.orphaned))
	}
	a.busy, a.leaving = false, false
	a.mu.Unlock()
	a.sweep(srv, ids...)
}

// leave says that the pool is active no more.
func (a *activePool) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = true
}

// poolTable has the active pools by name.
type poolTable struct {
	mu sync.Mutex
	// +checklocks:mu
	active map[string]*activePool // nil: the name is being taken
}

func (t *poolTable) init() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.active = make(map[string]*activePool)
}

// get returns an active pool.
func (t *poolTable) get(name string) (*activePool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.active[name]; a != nil {
		return a, nil
	}
	return nil, api.Errorf(api.ENOENT, "", "no active pool %q", name)
}

// reserve takes a name until put or drop. code says what a taken one means.
func (t *poolTable) reserve(name string, code api.Code) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, taken := t.active[name]; taken {
		return api.Errorf(code, "", "a pool %q is active, or is becoming so", name)
	}
	t.active[name] = nil
	return nil
}

func (t *poolTable) put(name string, a *activePool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.active[name] = a
}

func (t *poolTable) drop(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.active, name)
}

// rename moves a pool to a name that was reserved.
func (t *poolTable) rename(a *activePool, name, newName string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.active, name)
	t.active[newName] = a
	a.mu.Lock()
	a.name = newName
	a.mu.Unlock()
	a.feed.rename(newName)
	a.ownership.forget(true)
}

// list returns the active pools sorted by name.
func (t *poolTable) list() []*activePool {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := make([]string, 0, len(t.active))
	for name, a := range t.active {
		if a != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	list := make([]*activePool, len(names))
	for i, name := range names {
		list[i] = t.active[name]
	}
	return list
}

// title returns the pool's name.
func (a *activePool) title() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.name
}
