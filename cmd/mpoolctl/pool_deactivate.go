package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newPoolDeactivate(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "deactivate NAME",
		Short:   "Close a pool cleanly",
		Example: `  mpoolctl pool deactivate data`,
		Args:    cobra.ExactArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return a.withDaemon(ctx, func(d daemon) error {
				info, err := findPool(ctx, d, args[0])
				if err != nil {
					return err
				}
				if err := d.DeactivatePool(ctx, info.Name); err != nil {
					return err
				}
				info.State = "inactive"
				return a.print(pastPool{newPoolView(info)})
			})
		}),
	}
}
