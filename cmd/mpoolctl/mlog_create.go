package main

import (
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

type mlogCreateOptions struct {
	capacity sizeValue
	class    classValue
	owner    string
	tag      tagValue
}

func newMlogCreate(a *app) *cobra.Command {
	o := mlogCreateOptions{capacity: 16 << 20}
	c := &cobra.Command{
		Use:   "create POOL",
		Short: "Make an empty mlog",
		Example: `  mpoolctl mlog create data
  mpoolctl mlog create data --capacity 256MiB --class staging --owner web`,
		Args: cobra.ExactArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error { return o.run(ctx, a, args[0]) }),
	}
	f := c.Flags()
	f.Var(&o.capacity, "capacity", "bytes of records it must have room for")
	f.Var(&o.class, "class", "media class: capacity or staging")
	f.StringVar(&o.owner, "owner", "", "`NAME` or path (parent/child) of the owner; a new name makes an owner")
	f.Var(&o.tag, "tag", "the application's tag, a number of 64 bits")
	return c
}

func (o *mlogCreateOptions) run(ctx context.Context, a *app, pool string) error {
	return a.withPool(ctx, pool, func(p api.Pool) error {
		owner, err := ownerIndex(ctx, p, o.owner)
		if err != nil {
			return err
		}
		alloc := api.AllocOptions{Class: api.Class(o.class), Capacity: int64(o.capacity), Owner: owner}
		if o.tag.tag != nil {
			alloc.Tag = *o.tag.tag
		}
		log, err := p.AllocMlog(ctx, alloc)
		if err != nil {
			return err
		}
		if err := log.Commit(ctx); err != nil {
			return errors.Join(err, log.Put())
		}
		info, err := log.Info(ctx)
		if err := errors.Join(err, log.Put()); err != nil {
			return err
		}
		err = a.print(mlogCreated{ID: info.ID.String(), Capacity: info.Capacity, Generation: info.Generation})
		if err != nil {
			// Nobody would know of it.
			_, undoErr := deleteObject(context.WithoutCancel(ctx), p, info.ID.String(), openMlog)
			err = errors.Join(err, undoErr)
		}
		return err
	})
}

// mlogCreated is the result of making or erasing an mlog.
type mlogCreated struct {
	ID         string `json:"id"`
	Capacity   int64  `json:"capacity"`
	Generation uint64 `json:"generation"`
}

func (v mlogCreated) show(w io.Writer, quiet bool) error {
	if quiet {
		return writeLines(w, v.ID)
	}
	return writeFields(w, "id", v.ID, "capacity", showBytes(v.Capacity),
		"generation", strconv.FormatUint(v.Generation, 10))
}
