package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

func newMlogErase(a *app) *cobra.Command {
	var generation countValue
	c := &cobra.Command{
		Use:     "erase POOL ID",
		Short:   "Drop all records of an mlog",
		Example: `  mpoolctl mlog erase data @journal --yes`,
		Args:    cobra.ExactArgs(2),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			if err := checkIDs(args[1:]); err != nil {
				return err
			}
			if err := a.confirm(ctx, "erase all records of mlog %s of pool %s", args[1], args[0]); err != nil {
				return err
			}
			return a.withPool(ctx, args[0], func(p api.Pool) error {
				log, err := openLog(ctx, p, args[1])
				if err != nil {
					return err
				}
				info := api.ObjectInfo{}
				err = log.Erase(ctx, uint64(generation))
				if err == nil {
					info, err = log.Info(ctx)
				}
				if err := errors.Join(err, log.Put()); err != nil {
					return err
				}
				return a.print(mlogCreated{ID: info.ID.String(), Capacity: info.Capacity, Generation: info.Generation})
			})
		}),
	}
	c.Flags().Var(&generation, "min-generation", "raise the generation to `N` at least (default by one)")
	return c
}
