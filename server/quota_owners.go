package server

import (
	"context"
	"errors"
	"strings"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/quota"
)

// index returns an owner's index, by its path.
func (q *quotas) index(path string) (uint32, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i, ok := q.owners[path]
	return i, ok
}

// readOwners reads the pool's owner table.
func (q *quotas) readOwners(ctx context.Context) error {
	table, err := q.pool.Owners(ctx)
	if err != nil {
		return err
	}
	owners := make(map[string]uint32, len(table))
	for _, o := range table[1:] {
		path := ownerPath(table, o.Index)
		if _, taken := owners[path]; !taken {
			owners[path] = o.Index
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.owners = owners
	return nil
}

// ownerAdded takes an owner into the store that was added to the pool beside it.
func (q *quotas) ownerAdded(ctx context.Context) {
	err := q.readOwners(ctx)
	var list []quota.Owner
	if err == nil {
		list, err = q.List(ctx)
	}
	l, lerr := q.of(ctx, false)
	if err != nil || lerr != nil {
		return // it is there when the pool is activated again
	}
	there, err := l.Owners(ctx)
	if err != nil {
		return
	}
	known := make(map[string]bool, len(there))
	for _, o := range there {
		known[o.Name] = true
	}
	for _, o := range list {
		if !known[o.Name] {
			_ = l.AddOwner(ctx, o) //nolint:errcheck // as above
		}
	}
}

// List implements [embedded.Owners]: the pool's owner table. Owners whose paths quotas
// cannot name are left out, and all below them: what they hold counts all the same.
func (q *quotas) List(ctx context.Context) ([]quota.Owner, error) {
	table, err := q.pool.Owners(ctx)
	if err != nil {
		return nil, err
	}
	var list []quota.Owner
	named := map[string]int{"": 0} // how many are above
	for _, o := range table[1:] {
		path, above := ownerPath(table, o.Index), ""
		if o.Parent != 0 {
			above = ownerPath(table, o.Parent)
		}
		depth, ok := named[above]
		if _, taken := named[path]; !ok || taken || depth >= quota.MaxDepth-2 || !quota.ValidOwner(path) {
			continue
		}
		named[path] = depth + 1
		list = append(list, quota.Owner{Name: path, Parent: above})
	}
	return list, nil
}

// Add implements [embedded.Owners].
func (q *quotas) Add(ctx context.Context, o quota.Owner) error {
	parent, name := uint32(0), o.Name
	if o.Parent != "" {
		q.mu.Lock()
		index, ok := q.owners[o.Parent]
		q.mu.Unlock()
		if !ok {
			return api.Errorf(api.ENOENT, "", "no owner %q", o.Parent)
		}
		parent, name = index, strings.TrimPrefix(o.Name, o.Parent+"/")
	}
	index, err := q.pool.AddOwner(ctx, name, parent)
	q.home.ownership.forget(false)
	if errors.Is(err, api.EEXIST) {
		return q.readOwners(ctx)
	}
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.owners[o.Name] = index
	return nil
}

// owner returns the path of the owner that a name means: its path, or its own name if
// no other has that. One that is not there is to come to be at the top, or below one
// that is. index is 0 for it.
func (q *quotas) owner(ctx context.Context, name string) (path string, index uint32, err error) {
	table, err := q.pool.Owners(ctx)
	if err != nil {
		return "", 0, err
	}
	i, why := findOwner(table, name)
	switch {
	case why == "":
		return ownerPath(table, i), i, nil
	case strings.HasPrefix(why, "several"):
		return "", 0, api.Errorf(api.EINVAL, "", "owner %q: %s", name, why)
	case name == "" || len(name) > quota.MaxName:
		return "", 0, api.Errorf(api.EINVAL, "", "owner %q: want 1 to %d bytes", name, quota.MaxName)
	}
	if at := strings.LastIndexByte(name, '/'); at >= 0 {
		if _, why := findOwner(table, name[:at]); why != "" {
			return "", 0, api.Errorf(api.ENOENT, "", "owner %q: there is no %q to be above it", name, name[:at])
		}
	}
	return name, 0, nil
}

// ensureOwner is owner, which makes the one that is not there.
func (q *quotas) ensureOwner(ctx context.Context, l *quota.Ledger, name string) (string, error) {
	path, index, err := q.owner(ctx, name)
	if err != nil || index != 0 {
		return path, err
	}
	above := ""
	if at := strings.LastIndexByte(path, '/'); at >= 0 {
		above = path[:at]
	}
	err = l.AddOwner(ctx, quota.Owner{Name: path, Parent: above})
	if errors.Is(err, quota.ErrExists) {
		err = nil
	}
	return path, err
}
