package main

import (
	"context"
	"io"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

func newMblockDelete(a *app) *cobra.Command {
	return newObjectDelete(a, "mblock", openMblock)
}

// newObjectDelete declares the delete verb of a kind of object.
func newObjectDelete(a *app, kind string, open objectOpener) *cobra.Command {
	return &cobra.Command{
		Use:   "delete POOL ID...",
		Short: "Delete " + kind + "s for ever",
		Long: "Delete " + kind + `s for ever. One that somebody has a handle on is not deleted (EBUSY, with
the processes that hold it, for administrators); those before it stay deleted.
Roots that name a deleted object stay and lead nowhere.`,
		Example: examples("mpoolctl "+kind+" delete data "+exampleID(kind)+" --yes",
			"mpoolctl -q "+kind+" list data --tag 7 | xargs mpoolctl --yes "+kind+" delete data"),
		Args: cobra.MinimumNArgs(2),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			if err := checkIDs(args[1:]); err != nil {
				return err
			}
			if err := namedOnce(args[1:]); err != nil {
				return err
			}
			if err := a.confirm(ctx, "delete %s of pool %s", plural(len(args)-1, kind), args[0]); err != nil {
				return err
			}
			return a.withPool(ctx, args[0], func(p api.Pool) error {
				return deleteObjects(ctx, a, p, args[1:], open)
			})
		}),
	}
}

// namedOnce refuses an id that is there twice: one of two deletions of it would be in the
// other's way.
func namedOnce(ids []string) error {
	seen := make(map[layout.ObjectID]bool)
	for _, s := range ids {
		if id, err := parseID(s); err == nil && seen[id] {
			return usagef("%s is named twice", s)
		} else if err == nil { // else a root's name
			seen[id] = true
		}
	}
	return nil
}

// deleteWorkers is how many objects are deleted at once: deletions in flight
// share their flushes.
const deleteWorkers = 16

// deleteObjects deletes objects and returns the first error. No deletion is
// begun after one has failed.
func deleteObjects(ctx context.Context, a *app, p api.Pool, ids []string, open objectOpener) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	done := make(deletedViews, len(ids))
	jobs := make(chan int)
	var workers sync.WaitGroup
	for range min(deleteWorkers, len(ids)) {
		workers.Go(func() {
			for i := range jobs {
				id, err := deleteObject(ctx, p, ids[i], open)
				if err != nil {
					fail(err)
					continue
				}
				done[i] = deletedView{ID: id, Deleted: true}
			}
		})
	}
	feed(ctx, jobs, len(ids))
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		done = slices.DeleteFunc(done, func(d deletedView) bool { return !d.Deleted })
		if len(done) > 0 {
			a.warn("%d of %d were deleted before the error", len(done), len(ids))
		}
		return err
	}
	return a.print(done)
}

// feed hands out the numbers from 0 to n-1 until the context ends, and closes
// jobs.
func feed(ctx context.Context, jobs chan<- int, n int) {
	defer close(jobs)
	for i := range n {
		if ctx.Err() != nil {
			return
		}
		select {
		case jobs <- i:
		case <-ctx.Done():
			return
		}
	}
}

// deleteObject deletes one object and returns its id.
func deleteObject(ctx context.Context, p api.Pool, s string, open objectOpener) (string, error) {
	obj, err := open(ctx, p, s)
	if err != nil {
		return "", err
	}
	id := obj.ID().String()
	if err := obj.Delete(ctx); err != nil {
		// The handle's end matters no more: why the deletion failed does.
		_ = obj.Put() //nolint:errcheck // see above
		return "", err
	}
	return id, nil
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
