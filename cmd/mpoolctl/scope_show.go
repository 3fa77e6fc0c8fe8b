package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newScopeShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show what a scope uses and may use",
		Long: `Show what a scope uses now and may use, of every kind; see scope list. Of service,
user, client and session it shows the limits that each of them has that has none of
its own.`,
		Example: `  mpoolctl scope show system
  mpoolctl scope show client`,
		Args: cobra.ExactArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return a.withDaemon(ctx, func(d daemon) error { return a.listScopes(ctx, d, args[0]) })
		}),
	}
}
