package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newPoolDestroy(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "destroy NAME",
		Short:   "Destroy an active pool and everything in it",
		Example: `  mpoolctl pool destroy data --yes`,
		Args:    cobra.ExactArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return a.withDaemon(ctx, func(d daemon) error {
				info, err := findPool(ctx, d, args[0])
				if err != nil {
					return err
				}
				err = a.confirm(ctx, "destroy pool %s with its %s and %s, %s",
					info.Name, plural(int(info.Mblocks), "mblock"), plural(int(info.Mlogs), "mlog"), formatSize(info.Stored))
				if err != nil {
					return err
				}
				if err := d.DestroyPool(ctx, info.Name); err != nil {
					return err
				}
				info.State = "destroyed"
				return a.print(pastPool{newPoolView(info)})
			})
		}),
	}
}
