package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newPoolRename(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rename OLD NEW",
		Short:   "Rename an active pool",
		Example: `  mpoolctl pool rename data archive`,
		Args:    cobra.ExactArgs(2),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return a.withDaemon(ctx, func(d daemon) error {
				if err := d.RenamePool(ctx, args[0], args[1]); err != nil {
					return err
				}
				info, err := findPool(ctx, d, args[1])
				if err != nil {
					return err
				}
				return a.print(newPoolView(info))
			})
		}),
	}
}
