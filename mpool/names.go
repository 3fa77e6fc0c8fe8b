package mpool

import (
	"context"
	"slices"
	"sort"
	"strings"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// namesTable holds the named roots and the owner table, as they are durable.
// Writers hold Pool.admin across their commit as well.
type namesTable struct {
	mu sched.Mutex
	// +checklocks:mu
	byName map[string]layout.ObjectID
	// +checklocks:mu
	owner []api.Owner // by index; index 0 is the pool's own
}

func (t *namesTable) init(s *sched.Sched) {
	t.mu.Init(s, sched.RankUses)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byName = make(map[string]layout.ObjectID)
	t.owner = []api.Owner{{Name: ""}}
}

// roots returns the roots sorted by name.
func (t *namesTable) roots() []api.Root {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]api.Root, 0, len(t.byName))
	for name, id := range t.byName { // order does not matter: sorted below
		list = append(list, api.Root{Name: name, ID: id})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list
}

// root returns what a root names.
func (t *namesTable) root(name string) (layout.ObjectID, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, ok := t.byName[name]
	return id, ok
}

// owners returns the owner table without the pool's own entry.
func (t *namesTable) owners() []api.Owner {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]api.Owner(nil), t.owner[1:]...)
}

func (t *namesTable) setRoots(roots []api.Root) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range roots {
		if r.ID == 0 {
			delete(t.byName, r.Name)
		} else {
			t.byName[r.Name] = r.ID
		}
	}
}

// addOwner puts an owner at its index. It returns false if there is a gap
// before it or its parent is not there.
func (t *namesTable) addOwner(o api.Owner) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case int(o.Index) < len(t.owner) && o.Index > 0:
		t.owner[o.Index] = o // a compaction's copy of what is known
		return true
	case int(o.Index) != len(t.owner) || o.Parent >= o.Index:
		return false
	}
	t.owner = append(t.owner, o)
	return true
}

// ownerExists says whether an owner's index is known.
func (t *namesTable) ownerExists(index uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return int(index) < len(t.owner)
}

// maxOwners bounds the owner table.
const maxOwners = 1 << 16

// checkRoots validates changes of roots. The caller is in Pool.admin.
// committing holds objects that the same transaction commits.
func (p *Pool) checkRoots(op string, roots []api.Root, committing map[layout.ObjectID]bool) error {
	now := p.names.roots()
	after := make(map[string]bool, len(now)+len(roots))
	for _, r := range now {
		after[r.Name] = true
	}
	for _, r := range roots {
		switch {
		case r.Name == "" || len(r.Name) > api.MaxRootName || !printable(r.Name):
			return api.Errorf(api.EINVAL, op, "root name %q: want 1 to %d bytes of printable UTF-8", r.Name, api.MaxRootName)
		case r.ID == 0 && !after[r.Name]:
			return api.Errorf(api.ENOENT, op, "no root %q", r.Name)
		}
		if r.ID == 0 {
			delete(after, r.Name)
			continue
		}
		after[r.Name] = true
		if _, ok := p.table.Lookup(r.ID); !ok && !committing[r.ID] {
			return &api.Error{Code: api.ENOENT, Op: op, Object: r.ID, Detail: "a root names a committed object; there is none of this id"}
		}
	}
	if len(after) > api.MaxRoots {
		return api.Errorf(api.ENOSPC, op, "a pool has at most %d roots", api.MaxRoots)
	}
	return nil
}

// usersRoots refuses changes of the system's roots.
func usersRoots(op string, roots []api.Root) error {
	for _, r := range roots {
		if strings.HasPrefix(r.Name, ".") {
			return api.Errorf(api.EPERM, op, "root name %q: names that begin with '.' are the system's", r.Name)
		}
	}
	return nil
}

// SetRoots implements [api.Pool].
func (p *Pool) SetRoots(ctx context.Context, roots []api.Root) error {
	const op = "root set"
	if err := p.alive(op); err != nil {
		return err
	}
	if len(roots) == 0 {
		return nil
	}
	if len(roots) > api.MaxRoots {
		return api.Errorf(api.EINVAL, op, "%d roots at once: at most %d", len(roots), api.MaxRoots)
	}
	if err := usersRoots(op, roots); err != nil {
		return err
	}
	if err := p.admin.enter(ctx, op); err != nil {
		return err
	}
	if err := p.checkRoots(op, roots, nil); err != nil {
		p.admin.leave()
		return err
	}
	roots = append([]api.Root(nil), roots...)
	t := &txn{op: op, ids: []layout.ObjectID{namesID}, settled: p.admin.leave, apply: func() { p.names.setRoots(roots) }}
	t.frees = !slices.ContainsFunc(roots, func(r api.Root) bool { return r.ID != 0 })
	p.encodeRoots(t, roots)
	return p.meta.commit(ctx, t)
}

// encodeRoots adds changes of roots to a transaction. The caller is in
// Pool.admin.
func (p *Pool) encodeRoots(t *txn, roots []api.Root) {
	there := make(map[string]bool)
	for _, r := range p.names.roots() {
		there[r.Name] = true
	}
	for _, r := range roots {
		t.rec.Root(r.Name, r.ID)
		switch cost := nameBytes(r.Name); {
		case r.ID == 0 && there[r.Name]:
			t.live -= cost
			t.ends -= unsetCost(r.Name)
		case r.ID != 0 && !there[r.Name]:
			t.live += cost
			t.ends += unsetCost(r.Name)
		}
		there[r.Name] = r.ID != 0
	}
}

// nameBytes is what a root or an owner takes of a compacted log.
func nameBytes(name string) int64 { return int64(16 + len(name)) }

// live returns what all roots and owners take of a compacted log.
func (t *namesTable) live() int64 {
	var sum int64
	for _, r := range t.roots() {
		sum += nameBytes(r.Name)
	}
	for _, o := range t.owners() {
		sum += nameBytes(o.Name)
	}
	return sum
}

// ends returns what it takes of the log to unset all roots.
func (t *namesTable) ends() int64 {
	var sum int64
	for _, r := range t.roots() {
		sum += unsetCost(r.Name)
	}
	return sum
}

// Roots implements [api.Pool].
func (p *Pool) Roots(context.Context) ([]api.Root, error) {
	if err := p.alive("root list"); err != nil {
		return nil, err
	}
	return p.names.roots(), nil
}

// AddOwner implements [api.Pool].
func (p *Pool) AddOwner(ctx context.Context, name string, parent uint32) (uint32, error) {
	const op = "owner add"
	if err := p.alive(op); err != nil {
		return 0, err
	}
	if name == "" || len(name) > api.MaxOwnerName || !printable(name) || strings.Contains(name, "/") {
		return 0, api.Errorf(api.EINVAL, op, "owner name %q: want 1 to %d bytes of printable UTF-8 without '/', which separates the names of a path",
			name, api.MaxOwnerName)
	}
	if err := p.admin.enter(ctx, op); err != nil {
		return 0, err
	}
	o, err := p.newOwner(op, name, parent)
	if err != nil {
		p.admin.leave()
		return 0, err
	}
	t := &txn{
		op: op, ids: []layout.ObjectID{namesID}, live: nameBytes(name), settled: p.admin.leave,
		apply: func() {
			p.names.addOwner(o)
			p.holdings.add(o)
		},
	}
	t.rec.Owner(o.Index, o.Parent, o.Name)
	return o.Index, p.meta.commit(ctx, t)
}

// newOwner makes the next owner. The caller is in Pool.admin.
func (p *Pool) newOwner(op, name string, parent uint32) (api.Owner, error) {
	var none api.Owner
	list := p.names.owners()
	if parent > uint32(len(list)) {
		return none, api.Errorf(api.ENOENT, op, "no owner of index %d", parent)
	}
	for _, o := range list {
		if o.Parent == parent && o.Name == name {
			return none, api.Errorf(api.EEXIST, op, "owner %q is there already, index %d", name, o.Index)
		}
	}
	bytes, depth := len(name), 1
	for i := parent; i != 0; i = list[i-1].Parent {
		bytes += len(list[i-1].Name) + 1
		depth++
	}
	if bytes > api.MaxOwnerPath || depth > api.MaxOwnerDepth {
		return none, api.Errorf(api.EINVAL, op, "owner %q: its path has %d bytes and %d names: at most %d and %d",
			name, bytes, depth, api.MaxOwnerPath, api.MaxOwnerDepth)
	}
	if len(list)+1 >= maxOwners {
		return none, api.Errorf(api.ENOSPC, op, "a pool has at most %d owners", maxOwners)
	}
	return api.Owner{Index: uint32(len(list) + 1), Parent: parent, Name: name}, nil
}

// Owners implements [api.Pool].
func (p *Pool) Owners(context.Context) ([]api.Owner, error) {
	if err := p.alive("owner list"); err != nil {
		return nil, err
	}
	return append([]api.Owner{{}}, p.names.owners()...), nil
}
