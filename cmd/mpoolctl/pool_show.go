package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newPoolShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME|UUID",
		Short: "Show an active pool and its drives",
		Long: `Show an active pool and its drives. With --json the result is a list of one, so
that it reads as that of pool list.`,
		Example: `  mpoolctl pool show data
  mpoolctl --json pool show data | jq '.[0].drives[] | select(.state != "online")'`,
		Args: cobra.ExactArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return a.withDaemon(ctx, func(d daemon) error {
				info, err := findPool(ctx, d, args[0])
				if err != nil {
					return err
				}
				v := newPoolView(info)
				if a.json {
					return a.print(poolsView{v})
				}
				return a.print(v)
			})
		}),
	}
}
