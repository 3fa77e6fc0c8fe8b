package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/mpool-go/mpool/api"
)

// owners knows the names of a pool's owners.
type owners struct {
	byIndex map[uint32]string
	byName  map[string]uint32
}

// readOwners reads the owner table.
func readOwners(ctx context.Context, p api.Pool) (owners, error) {
	list, err := p.Owners(ctx)
	if err != nil {
		return owners{}, err
	}
	parents := make(map[uint32]uint32, len(list))
	o := owners{byIndex: make(map[uint32]string), byName: make(map[string]uint32)}
	for _, e := range list {
		o.byIndex[e.Index] = e.Name
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

// find looks an owner up by name, or by its index in digits.
func (o owners) find(name string) (uint32, bool) {
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

// ownerIndex finds an owner or makes it: one never named before exists.
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
		i, err := p.AddOwner(ctx, name, 0)
		if !errors.Is(err, api.EEXIST) {
			return i, err
		}
		// Somebody made it meanwhile.
	}
}
