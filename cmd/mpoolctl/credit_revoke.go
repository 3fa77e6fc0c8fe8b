package main

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
)

func newCreditRevoke(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke POOL ID",
		Short: "Call all credits on an object back, and take what is held on to",
		Long: `Call all credits on an object back from whoever has them, wait until they are given
back, and print those there were. What was merely kept for later goes back at once. Who
holds on until the daemon's deadline for call-backs is fenced: what it does under the
credit from then on is refused with ESTALE. For administrators; others may do it where
all processes that have credits on the object are their own user's.`,
		Example: `  mpoolctl credit revoke data @journal --yes`,
		Args:    cobra.ExactArgs(2),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			if err := checkIDs(args[1:]); err != nil {
				return err
			}
			if err := a.confirm(ctx, "call all credits on object %s of pool %s back, and take what is held on to", args[1], args[0]); err != nil {
				return err
			}
			return a.withCredits(ctx, args[0], args[1], func(d daemon, p client.Credits, id layout.ObjectID) error {
				list, err := creditsAndHandlesOn(ctx, d, p, args[0], id)
				if err != nil {
					return err
				}
				if err := p.RevokeCredit(ctx, id); err != nil {
					return err
				}
				return a.print(creditsView(had(list)))
			})
		}),
	}
}

// creditsAndHandlesOn returns the credits on one object with those of handles, which
// the daemon has in its book while a connection has a credit on the object.
func creditsAndHandlesOn(ctx context.Context, d daemon, p client.Credits, pool string, id layout.ObjectID) ([]creditView, error) {
	list, err := creditsOn(ctx, d, pool, id)
	if err != nil || len(list) > 0 {
		return list, err
	}
	hold, err := p.AcquireCredit(ctx, id, client.CreditRequest{Modes: client.CreditRead, Try: true})
	if err != nil {
		return creditsOn(ctx, d, pool, id) // somebody has one now, or the revocation says what is wrong
	}
	list, err = creditsOn(ctx, d, pool, id)
	self := int32(os.Getpid())
	list = slices.DeleteFunc(list, func(c creditView) bool { return c.PID == self })
	return list, errors.Join(err, hold.Release())
}

// had returns those that are had, not waited for.
func had(list []creditView) []creditView {
	out := []creditView{}
	for _, c := range list {
		if c.State != client.CreditWaiting.String() {
			out = append(out, c)
		}
	}
	return out
}
