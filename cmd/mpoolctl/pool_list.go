package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newPoolList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the active pools",
		Example: `  mpoolctl pool list`,
		Args:    cobra.NoArgs,
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			return a.withDaemon(ctx, func(d daemon) error {
				pools, err := d.Pools(ctx)
				if err != nil {
					return err
				}
				views := make(poolsView, 0, len(pools))
				for _, p := range pools {
					views = append(views, newPoolView(p))
				}
				return a.print(views)
			})
		}),
	}
}
