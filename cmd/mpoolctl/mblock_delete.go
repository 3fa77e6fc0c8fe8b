package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

func newMblockDelete(a *app) *cobra.Command {
	return newObjectDelete(a, "mblock", openMblock)
}

// newObjectDelete declares the delete verb of a kind of object.
func newObjectDelete(a *app, kind string, open objectOpener) *cobra.Command {
	return &cobra.Command{
		Use:   "delete POOL ID...",
		Short: "Delete " + kind + "s for ever",
		Args:  cobra.MinimumNArgs(2),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			if err := checkIDs(args[1:]); err != nil {
				return err
			}
			if err := a.confirm("delete %s of pool %s", plural(len(args)-1, kind), args[0]); err != nil {
				return err
			}
			return a.withPool(ctx, args[0], func(p api.Pool) error {
				return deleteObjects(ctx, a, p, args[1:], open)
			})
		}),
	}
}

// deleteObjects deletes objects in turn and stops at the first that cannot be.
func deleteObjects(ctx context.Context, a *app, p api.Pool, ids []string, open objectOpener) error {
	done := make(deletedViews, 0, len(ids))
	for _, s := range ids {
		obj, err := open(ctx, p, s)
		if err == nil {
			id := obj.ID().String()
			if err = obj.Delete(ctx); err == nil {
				done = append(done, deletedView{ID: id, Deleted: true})
				continue
			}
			// The handle's end matters no more: why the deletion failed does.
			_ = obj.Put() //nolint:errcheck // see above
		}
		if len(done) > 0 {
			a.warn("%d of %d were deleted before the error", len(done), len(ids))
		}
		return err
	}
	return a.print(done)
}

// deletedView is a deleted object as it is shown.
type deletedView struct {
	ID      string `json:"id"`
	Deleted bool   `json:"deleted"`
}

type deletedViews []deletedView

func (v deletedViews) show(w io.Writer, quiet bool) error {
	for _, d := range v {
		line := "deleted " + d.ID
		if quiet {
			line = d.ID
		}
		if err := writeLines(w, line); err != nil {
			return err
		}
	}
	return nil
}
