package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/layout"
)

func newMblockList(a *app) *cobra.Command {
	return newObjectList(a, layout.KindMblock)
}

// newObjectList declares the list verb of a kind of object.
func newObjectList(a *app, kind layout.Kind) *cobra.Command {
	o := listOptions{kind: kind}
	c := &cobra.Command{
		Use:   "list POOL",
		Short: "List the " + kind.String() + "s of a pool, in no order; with --json one per line",
		Long: "List the " + kind.String() + `s of a pool that the caller may use, in no order, as they are read: those
that come or go meanwhile may be missed or not. Without --state: the committed
ones. --owner takes a name or a number; with --json there is one object per line.
An object that is not committed is in its own session's list only; handle list
shows which there are.`,
		Example: examples("mpoolctl "+kind.String()+" list data --owner web --tag 7",
			"mpoolctl --json "+kind.String()+" list data | jq -r 'select(.refs > 0).id'"),
		Args: cobra.ExactArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error { return o.run(ctx, a, args[0]) }),
	}
	f := c.Flags()
	f.StringVar(&o.owner, "owner", "", "only those of the owner `NAME` or path (parent/child)")
	f.Var(&o.tag, "tag", "only those with this tag")
	f.StringVar(&o.state, "state", "", "only those in `STATE`: uncommitted, committed or deleting (default committed)")
	return c
}
