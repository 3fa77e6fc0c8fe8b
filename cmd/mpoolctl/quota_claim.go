package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

// quotaClaimView is a claim.
type quotaClaimView struct {
	ID      string           `json:"id"`
	Owner   string           `json:"owner"`
	State   string           `json:"state"`
	Expires *string          `json:"expires"` // null of what is held
	Claims  map[string]int64 `json:"claims"`
	Parent  string           `json:"parent,omitempty"`
	RealID  string           `json:"real_id,omitempty"`

	text string
}

func newQuotaClaimView(c *api.QuotaClaim) quotaClaimView {
	v := quotaClaimView{ID: c.ID, Owner: c.Owner, State: c.State, Claims: make(map[string]int64), Parent: c.Parent, RealID: c.Real}
	if !c.Expires.IsZero() {
		at := formatTime(c.Expires)
		v.Expires = &at
	}
	var parts []string
	for _, x := range c.Amounts {
		v.Claims[x.Class] = x.N
		parts = append(parts, fmt.Sprintf("%s=%d", x.Class, x.N))
	}
	v.text = strings.Join(parts, " ")
	return v
}

func (v quotaClaimView) show(w io.Writer, quiet bool) error { return quotaClaimsView{v}.show(w, quiet) }

type quotaClaimsView []quotaClaimView

func newQuotaClaimsView(list []api.QuotaClaim) quotaClaimsView {
	v := make(quotaClaimsView, len(list))
	for i := range list {
		v[i] = newQuotaClaimView(&list[i])
	}
	return v
}

func (v quotaClaimsView) show(w io.Writer, quiet bool) error {
	var rows [][]string
	for _, c := range v {
		if quiet {
			if err := writeLines(w, c.ID); err != nil {
				return err
			}
		}
		expires := ""
		if c.Expires != nil {
			expires = *c.Expires
		}
		rows = append(rows, []string{c.ID, c.Owner, c.State, c.text, c.RealID, c.Parent, expires})
	}
	if quiet {
		return nil
	}
	return writeTable(w, []string{"ID", "OWNER", "STATE", "CLAIMS", "REAL ID", "PARENT", "EXPIRES"}, rows)
}

// requestFlag declares the option by which a call can be repeated.
func requestFlag(c *cobra.Command, id *string) *cobra.Command {
	c.Flags().StringVar(id, "request-id", "", "an `ID` of your own: the same call again under it does nothing more")
	return c
}

func printClaim(a *app, c api.QuotaClaim, err error) error {
	if err != nil {
		return err
	}
	return a.print(newQuotaClaimView(&c))
}

func newQuotaReserve(a *app) *cobra.Command {
	var ask api.QuotaAsk
	c := quotaVerb(a, &cobra.Command{
		Use:   "reserve OWNER CLASS=N...",
		Short: "Reserve amounts for an owner, all of them or none",
		Long: `Reserve amounts for an owner, all of them or none. A reservation counts at once, for
the owner and all above it. It ends by itself after its time unless it is provisioned.
An owner never named before comes to be, with default limits.`,
		Example: `  mpoolctl quota reserve john database.cluster=1
  mpoolctl quota reserve john storage=1TB memory=1GB --parent 0000000000000002 --ttl 10m`,
		Args: cobra.MinimumNArgs(2),
	}, func(ctx context.Context, q api.Quotas, args []string) error {
		var err error
		if ask.Amounts, err = parseAmounts(args[1:]); err != nil {
			return err
		}
		if ask.TTL < 0 {
			return usagef("--ttl %v: want more than 0", ask.TTL)
		}
		ask.Owner = args[0]
		claim, err := q.ReserveQuota(ctx, ask)
		return printClaim(a, claim, err)
	})
	c.Flags().StringVar(&ask.Parent, "parent", "", "the claim that it lies under, and is released with: `ID`")
	c.Flags().DurationVar(&ask.TTL, "ttl", time.Hour, "how long it is reserved")
	return requestFlag(c, &ask.Request)
}

func newQuotaProvision(a *app) *cobra.Command {
	var request string
	return requestFlag(quotaVerb(a, &cobra.Command{
		Use: "provision ID REALID", Short: "Make a reservation held, under an id of your own",
		Example: `  mpoolctl quota provision 0000000000000004 cinder-1-uuid`, Args: cobra.ExactArgs(2),
	}, func(ctx context.Context, q api.Quotas, args []string) error {
		claim, err := q.ProvisionQuota(ctx, args[0], args[1], request)
		return printClaim(a, claim, err)
	}), &request)
}

func newQuotaResize(a *app) *cobra.Command {
	var request string
	return requestFlag(quotaVerb(a, &cobra.Command{
		Use:   "resize ID CLASS=N...",
		Short: "Give a claim other amounts; only what grows is checked",
		Long: `Give a claim, named by its id or its real id, other amounts; classes that are not
named stay. Only what grows is checked, for the difference. 0 leaves a class out.`,
		Example: `  mpoolctl quota resize cinder-3-uuid storage=2TB`,
		Args:    cobra.MinimumNArgs(2),
	}, func(ctx context.Context, q api.Quotas, args []string) error {
		amounts, err := parseAmounts(args[1:])
		if err != nil {
			return err
		}
		claim, err := q.ResizeQuota(ctx, args[0], amounts, request)
		return printClaim(a, claim, err)
	}), &request)
}

func newQuotaRelease(a *app) *cobra.Command {
	var request string
	return requestFlag(quotaVerb(a, &cobra.Command{
		Use: "release ID", Short: "End a claim, named by its id or its real id, and all below it",
		Example: `  mpoolctl quota release cinder-4-uuid`, Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, q api.Quotas, args []string) error {
		claim, err := q.ReleaseQuota(ctx, args[0], request)
		if err == nil && claim.ID == "" {
			claim = api.QuotaClaim{ID: args[0]} // it was released before
		}
		claim.State, claim.Expires = "released", time.Time{}
		return printClaim(a, claim, err)
	}), &request)
}

func newQuotaTransfer(a *app) *cobra.Command {
	var request string
	return requestFlag(quotaVerb(a, &cobra.Command{
		Use: "transfer ID OWNER", Short: "Give a claim to another owner, who must have room for it",
		Example: `  mpoolctl quota transfer cinder-1-uuid amrith`, Args: cobra.ExactArgs(2),
	}, func(ctx context.Context, q api.Quotas, args []string) error {
		claim, err := q.TransferQuota(ctx, args[0], args[1], request)
		return printClaim(a, claim, err)
	}), &request)
}

func newQuotaExpire(a *app) *cobra.Command {
	return quotaVerb(a, &cobra.Command{
		Use: "expire", Short: "End the reservations whose time is over; they also end by themselves",
		Example: `  mpoolctl quota expire`, Args: cobra.NoArgs,
	}, func(ctx context.Context, q api.Quotas, _ []string) error {
		list, err := q.ExpireQuota(ctx)
		if err != nil {
			return err
		}
		return a.print(newQuotaClaimsView(list))
	})
}

func newQuotaClaims(a *app) *cobra.Command {
	var owner string
	c := quotaVerb(a, &cobra.Command{
		Use: "claims", Short: "List the claims", Example: `  mpoolctl quota claims --owner john`, Args: cobra.NoArgs,
	}, func(ctx context.Context, q api.Quotas, _ []string) error {
		list, err := q.QuotaClaims(ctx, owner)
		if err != nil {
			return err
		}
		return a.print(newQuotaClaimsView(list))
	})
	c.Flags().StringVar(&owner, "owner", "", "those of one `OWNER` alone")
	return c
}
