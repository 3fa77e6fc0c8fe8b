package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

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
		names, err := readOwners(ctx, p)
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
		out := newObjectWriter(a)
		for info, err := range p.Objects(ctx, filter) {
			if err != nil {
				return errors.Join(out.flush(), err)
			}
			if err := out.write(newObjectView(info, names)); err != nil {
				return err
			}
		}
		return out.flush()
	})
}

// objectWriter writes a stream of objects in columns of fixed width.
type objectWriter struct {
	a    *app
	buf  *bufio.Writer
	json *json.Encoder
	rows int
}

const objectRow = "%-16s  %-11s  %-8s  %10s  %10s  %-12s  %20v  %4v  %s\n"

func newObjectWriter(a *app) *objectWriter {
	b := bufio.NewWriter(a.stdout)
	w := &objectWriter{a: a, buf: b, json: json.NewEncoder(b)}
	w.json.SetEscapeHTML(false)
	return w
}

func (w *objectWriter) write(v objectView) error {
	switch {
	case w.a.json:
		return w.json.Encode(v)
	case w.a.quiet:
		return writeLines(w.buf, v.ID)
	}
	if w.rows == 0 {
		if _, err := fmt.Fprintf(w.buf, objectRow,
			"ID", "STATE", "CLASS", "LENGTH", "CAPACITY", "OWNER", "TAG", "REFS", "CREATED"); err != nil {
			return err
		}
	}
	w.rows++
	_, err := fmt.Fprintf(w.buf, objectRow, v.ID, v.State, v.Class, formatSize(v.Length), formatSize(v.Capacity),
		cmp.Or(v.Owner, "-"), v.Tag, v.Refs, v.Created)
	return err
}

func (w *objectWriter) flush() error { return w.buf.Flush() }
