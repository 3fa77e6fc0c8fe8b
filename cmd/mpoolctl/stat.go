package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
)

func newStat(a *app) *cobra.Command {
	var interval time.Duration
	c := &cobra.Command{
		Use:   "stat [POOL]",
		Short: "Show counters and latencies of the daemon or of one pool",
		Long: `Show counters and latencies of the daemon or of one pool: since it started or,
with --interval, again and again, what has changed since the last time. A
percentile is the upper end of the bucket that it falls in; buckets double.`,
		Example: `  mpoolctl stat
  mpoolctl stat data --interval 1s`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			pool := ""
			if len(args) == 1 {
				pool = args[0]
			}
			if interval < 0 {
				return usagef("--interval: want a duration above 0")
			}
			return a.withDaemon(ctx, func(d daemon) error {
				if interval == 0 {
					s, err := d.Stat(ctx, pool)
					if err != nil {
						return err
					}
					return a.print(newStatView(pool, client.Stats{}, s))
				}
				return a.followStat(ctx, d, pool, interval)
			})
		}),
	}
	c.Flags().DurationVar(&interval, "interval", 0, "print again each `D`, such as 1s, until interrupted")
	return c
}

// followStat prints what has changed, again and again, until interrupted.
func (a *app) followStat(ctx context.Context, d daemon, pool string, interval time.Duration) error {
	var last client.Stats
	for {
		s, err := d.Stat(ctx, pool)
		if err == nil {
			err = a.print(newStatView(pool, last, s))
		}
		if err == nil {
			last = s
			err = wait(ctx, interval)
		}
		if ctx.Err() != nil && errors.Is(err, api.ECANCELED) {
			return nil // an interrupt is how it ends
		}
		if err != nil {
			return err
		}
	}
}
