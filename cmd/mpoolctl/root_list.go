package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

func newRootList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list POOL",
		Short:   "List the named roots of a pool",
		Example: `  mpoolctl root list data`,
		Args:    cobra.ExactArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return a.withPool(ctx, args[0], func(p api.Pool) error {
				roots, err := p.Roots(ctx)
				if err != nil {
					return err
				}
				return a.print(newRootsView(roots))
			})
		}),
	}
}
