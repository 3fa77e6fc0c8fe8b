package main

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// owners knows the names of a pool's owners, and what is the pool's own.
type owners struct {
	byIndex map[uint32]string
	byName  map[string]uint32
	byPath  map[string]uint32          // parent/child
	system  map[layout.ObjectID]string // the system's objects: their roots' names
}

// readOwners reads the owner table.
func readOwners(ctx context.Context, p api.Pool) (owners, error) {
	list, err := p.Owners(ctx)
	if err != nil {
		return owners{}, err
	}
	parents := make(map[uint32]uint32, len(list))
	paths := make(map[uint32]string, len(list))
	o := owners{byIndex: make(map[uint32]string), byName: make(map[string]uint32), byPath: make(map[string]uint32)}
	for _, e := range list { // one above comes before those below
		o.byIndex[e.Index] = e.Name
		paths[e.Index] = e.Name
		if e.Parent != 0 {
			paths[e.Index] = paths[e.Parent] + "/" + e.Name
		}
		if _, taken := o.byPath[paths[e.Index]]; !taken {
			o.byPath[paths[e.Index]] = e.Index
		}
		// Siblings have different names, others may not: one at the top is meant
		// before one below, and of those the oldest.
		i, taken := o.byName[e.Name]
		if !taken || e.Parent == 0 && parents[i] != 0 {
			o.byName[e.Name] = e.Index
		}
		parents[e.Index] = e.Parent
	}
	return o, nil
}

// readNames is readOwners, with what the system's roots name: those that begin with '.'.
func readNames(ctx context.Context, p api.Pool) (owners, error) {
	o, err := readOwners(ctx, p)
	if err != nil {
		return owners{}, err
	}
	roots, err := p.Roots(ctx)
	o.system = make(map[layout.ObjectID]string)
	for _, r := range roots {
		if strings.HasPrefix(r.Name, ".") {
			o.system[r.ID] = r.Name
		}
	}
	return o, err
}

// systemOf returns the name of the root of the system that names an object, or the
// other log of its container; "" of what is not the system's.
func (o owners) systemOf(i *api.ObjectInfo) string {
	if name := o.system[i.ID]; name != "" || i.Partner == 0 {
		return name
	}
	return o.system[i.Partner]
}

// find looks an owner up by path, by name, or by its index in digits.
func (o owners) find(name string) (uint32, bool) {
	if i, ok := o.byPath[name]; ok {
		return i, true
	}
	if i, ok := o.byName[name]; ok {
		return i, true
	}
	i, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return 0, false
	}
	_, ok := o.byIndex[uint32(i)]
	return uint32(i), ok
}

// ownerIndex finds an owner or makes it, below the one that its path names: one never
// named before exists.
func ownerIndex(ctx context.Context, p api.Pool, name string) (uint32, error) {
	if name == "" {
		return 0, nil
	}
	for {
		o, err := readOwners(ctx, p)
		if err != nil {
			return 0, err
		}
		if i, ok := o.find(name); ok {
			return i, nil
		}
		above, own := uint32(0), name
		if at := strings.LastIndexByte(name, '/'); at >= 0 {
			i, ok := o.find(name[:at])
			if !ok {
				return 0, api.Errorf(api.ENOENT, "", "owner %q: there is no %q to be above it", name, name[:at])
			}
			above, own = i, name[at+1:]
		}
		i, err := p.AddOwner(ctx, own, above)
		if !errors.Is(err, api.EEXIST) {
			return i, err
		}
		// Somebody made it meanwhile.
	}
}
