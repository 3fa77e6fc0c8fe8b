package main

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// listOptions are the filters of the list verbs.
type listOptions struct {
	kind  layout.Kind
	owner string
	tag   tagValue
	state string
}

// run prints the objects of a pool as they come: a pool may have millions.
func (o *listOptions) run(ctx context.Context, a *app, pool string) error {
	filter := api.Filter{Kind: o.kind, Tag: o.tag.tag}
	if o.state != "" {
		st, err := parseState(o.state)
		if err != nil {
			return err
		}
		filter.State = st
	}
	return a.withPool(ctx, pool, func(p api.Pool) error {
		names, err := readNames(ctx, p)
		if err != nil {
			return err
		}
		if o.owner != "" {
			i, ok := names.find(o.owner)
			if !ok {
				return api.Errorf(api.ENOENT, "", "the pool has no owner named %q", o.owner)
			}
			filter.Owner = &i
		}
		out := newRowWriter(a, "%-16s  %-11s  %-8s  %10s  %10s  %-12s  %20v  %4v  %s",
			"ID", "STATE", "CLASS", "LENGTH", "CAPACITY", "OWNER", "TAG", "REFS", "CREATED")
		for info, err := range p.Objects(ctx, filter) {
			if err != nil {
				return errors.Join(out.flush(), err)
			}
			v := newObjectView(info, names)
			if err := out.write(v, v.ID, v.State, v.Class, formatSize(v.Length), formatSize(v.Capacity),
				v.ownerText(), v.Tag, v.Refs, v.Created); err != nil {
				return err
			}
		}
		return out.flush()
	})
}
