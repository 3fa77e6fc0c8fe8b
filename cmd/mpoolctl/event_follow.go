package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/client"
)

func newEventFollow(a *app) *cobra.Command {
	var since sinceValue
	c := &cobra.Command{
		Use:   "follow",
		Short: "Print what happens, as it happens, until interrupted",
		Long: `Print what an administrator should know of, as it happens: pools that are activated
and deactivated, client processes that end and what was reclaimed from them,
corruption, poisoned objects, failed drives, pools that turn read-only, commits that
a crash had cut off, owners over a quota, credits that were taken. An interrupt ends
it, with exit code 0.

--since begins with what happened before, as far as the daemon still has it: since
a time (2026-11-21T09:30:00Z) or for a duration up to now (10m). To go on where
another one ended give the time of its last event, which comes again. Events that are
lost, because the daemon keeps the last ones only, are counted on stderr and, with
--json, in a line of type events_missed; "missed" is 0 there when a restart of the
daemon, which does not end it, has lost nobody knows how many.`,
		Example: `  mpoolctl event follow --since 10m
  mpoolctl --json event follow | jq 'select(.type == "client_reaped")'`,
		Args: cobra.NoArgs,
	}
	c.Flags().Var(&since, "since", "begin at `TIME`: RFC 3339, or a duration up to now")
	c.RunE = a.verb(func(ctx context.Context, _ []string) error {
		a.patience = followPatience
		return a.withDaemon(ctx, func(d daemon) error {
			from := since.time
			if from.IsZero() {
				from = time.Now()
			}
			ctx, stop := a.whileRead(ctx)
			defer stop()
			return followed(ctx, a.followEvents(ctx, d, from))
		})
	})
	return c
}

// followPatience is how long event follow waits for a daemon that has gone: the
// restart of one is an event too.
const followPatience = time.Minute

// followEvents prints events until the context ends.
func (a *app) followEvents(ctx context.Context, d daemon, since time.Time) error {
	out := newRowWriter(a, "%-30s  %-16s  %s", "TIME", "TYPE", "WHAT")
	for e, err := range d.Events(ctx, client.EventOptions{Since: since, Follow: true}) {
		if gap, ok := errors.AsType[*client.EventGap](err); ok {
			a.warn("event follow: %v", gap)
			if a.json {
				if err := errors.Join(out.write(newGapView(gap, time.Now()), ""), out.flush()); err != nil {
					return err
				}
			}
			continue
		}
		if err != nil {
			return err
		}
		v := newEventView(e)
		if err := errors.Join(out.write(v, v.Time, v.Type, v.sentence()), out.flush()); err != nil {
			return err
		}
	}
	return nil
}

// sinceValue is a flag that holds a moment; the zero time: not given.
type sinceValue struct{ time time.Time }

func (v *sinceValue) String() string { return "" }

func (v *sinceValue) Set(s string) error {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		v.time = time.Now().Add(-d)
		return nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Unix() <= 0 {
		return errors.New("want a time such as 2026-11-21T09:30:00Z, or a duration such as 10m")
	}
	v.time = t
	return nil
}

func (v *sinceValue) Type() string { return "TIME" }
