package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

func newPoolActivate(a *app) *cobra.Command {
	var o api.ActivateOptions
	c := &cobra.Command{
		Use:   "activate NAME|UUID [DEV...]",
		Short: "Activate a pool from its devices",
		Long: `Activate a pool from the devices given or, with none, from those among the
host's block devices that belong to it. A pool in regular files needs them named.

A pool of which a drive is missing is not activated, unless --force is given: then
it is read-only and degraded, and what is on the missing drive cannot be read. The
first drive of the class capacity, which has the metadata, must be there.

A drive that missed activations is an old copy, or failed them. It is not taken for
the drive, unless --force is given: its logs may lack records that were synced.`,
		Example: `  mpoolctl pool activate data
  mpoolctl pool activate data /dev/nvme1n1 /dev/nvme2n1
  mpoolctl pool activate data --force /dev/nvme1n1`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return a.withDaemon(ctx, func(d daemon) error {
				info, err := d.ActivatePool(ctx, args[0], absolutePaths(args[1:]), o)
				if err != nil {
					return err
				}
				return a.print(newPoolView(info))
			})
		}),
	}
	c.Flags().BoolVar(&o.Force, "force", false, "activate without missing drives, read-only; take old copies of drives")
	c.Flags().BoolVar(&o.Resize, "resize", false, "use devices that have grown")
	return c
}
