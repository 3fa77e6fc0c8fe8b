package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

func newMblockShow(a *app) *cobra.Command {
	return newObjectShow(a, "mblock", openMblock, nil)
}

// objectOpener opens an object of one kind.
type objectOpener func(ctx context.Context, p api.Pool, id string) (api.Object, error)

func openMblock(ctx context.Context, p api.Pool, s string) (api.Object, error) {
	return openMblockByName(ctx, p, s)
}

// openMblockByName opens an mblock by its id or a root's name.
func openMblockByName(ctx context.Context, p api.Pool, s string) (api.Mblock, error) {
	id, err := objectID(ctx, p, s)
	if err != nil {
		return nil, err
	}
	return p.Mblock(ctx, id)
}

// newObjectShow declares the show verb of a kind of object. more finds out what is not
// known of an object that nobody has open; nil: nothing.
func newObjectShow(a *app, kind string, open objectOpener, more func(context.Context, api.Object, *api.ObjectInfo) error) *cobra.Command {
	return &cobra.Command{
		Use:   "show POOL ID",
		Short: "Show one " + kind,
		Long: "Show one " + kind + `. Its references are the handles of other
sessions on it, which handle list shows.`,
		Example: examples("mpoolctl "+kind+" show data "+exampleID(kind), "mpoolctl "+kind+" show data @head"),
		Args:    cobra.ExactArgs(2),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			if err := checkIDs(args[1:]); err != nil {
				return err
			}
			return a.withPool(ctx, args[0], func(p api.Pool) error {
				names, err := readNames(ctx, p)
				if err != nil {
					return err
				}
				obj, err := open(ctx, p, args[1])
				if err != nil {
					return err
				}
				info, err := obj.Info(ctx)
				if err == nil && more != nil {
					err = more(ctx, obj, &info)
				}
				if err := errors.Join(err, obj.Put()); err != nil {
					return err
				}
				if info.Refs > 0 {
					info.Refs-- // the one this command held
				}
				return a.print(newObjectView(info, names))
			})
		}),
	}
}
