package main

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

// quotaUsageView is what an owner has of a class.
type quotaUsageView struct {
	Class    string    `json:"class"`
	Owner    string    `json:"owner"` // "": all together
	Used     int64     `json:"used"`
	Reserved int64     `json:"reserved"`
	Limit    limitJSON `json:"limit"`
	Origin   string    `json:"origin"`

	bytes bool
}

type quotaUsagesView []quotaUsageView

func (v quotaUsagesView) show(w io.Writer, quiet bool) error {
	var rows [][]string
	for _, u := range v {
		owner := u.Owner
		if owner == "" {
			owner = "(all)"
		}
		if quiet {
			if err := writeLines(w, owner+" "+u.Class); err != nil {
				return err
			}
			continue
		}
		limit := limitText(int64(u.Limit))
		if u.Limit >= 0 {
			limit = amountText(int64(u.Limit), u.bytes)
		}
		rows = append(rows, []string{owner, u.Class, amountText(u.Used, u.bytes), amountText(u.Reserved, u.bytes), limit, u.Origin})
	}
	if quiet {
		return nil
	}
	return writeTable(w, []string{"OWNER", "CLASS", "USED", "RESERVED", "LIMIT", "ORIGIN"}, rows)
}

// byteClasses returns the classes whose numbers are bytes.
func byteClasses(ctx context.Context, q api.Quotas) (map[string]bool, error) {
	list, err := q.QuotaClasses(ctx)
	bytes := make(map[string]bool)
	for i := range list {
		bytes[list[i].Name] = list[i].Bytes
	}
	return bytes, err
}

func usageViews(ctx context.Context, q api.Quotas, owner string) (quotaUsagesView, error) {
	bytes, err := byteClasses(ctx, q)
	if err != nil {
		return nil, err
	}
	list, err := q.QuotaUsage(ctx, owner)
	v := make(quotaUsagesView, 0, len(list))
	for _, u := range list {
		v = append(v, quotaUsageView{
			Class: u.Class, Owner: u.Owner, Used: u.Held, Reserved: u.Reserved, Limit: limitJSON(u.Limit), Origin: u.Origin,
			bytes: bytes[u.Class],
		})
	}
	return v, err
}

func newQuotaUsage(a *app) *cobra.Command {
	return quotaVerb(a, &cobra.Command{
		Use:   "usage [OWNER]",
		Short: "Show what owners have of each class, and their limits",
		Long: `Show what an owner, with all below it, has of each class, and its limit; without
OWNER what all have, and each. USED is held, RESERVED is of reservations and of
uncommitted objects; both count.`,
		Example: `  mpoolctl quota usage
  mpoolctl quota usage john`,
		Args: cobra.MaximumNArgs(1),
	}, func(ctx context.Context, q api.Quotas, args []string) error {
		v, err := usageViews(ctx, q, strings.Join(args, ""))
		if err != nil {
			return err
		}
		return a.print(v)
	})
}

func newQuotaLimitSet(a *app) *cobra.Command {
	return quotaVerb(a, &cobra.Command{
		Use:   "set OWNER CLASS=N...",
		Short: "Set limits of an owner: numbers, or unlimited",
		Long: `Set limits of an owner: numbers, or the word unlimited. A limit below what the owner
holds takes nothing away; it refuses more, and an event says who is over it.`,
		Example: `  mpoolctl quota limit set amrith database.instance=2 database.cluster=1
  mpoolctl quota limit set john mpool.bytes.capacity=100GiB`,
		Args: cobra.MinimumNArgs(2),
	}, func(ctx context.Context, q api.Quotas, args []string) error {
		var classes []string
		limits := make([]api.QuotaLimit, 0, len(args)-1)
		for _, arg := range args[1:] {
			class, text, ok := strings.Cut(arg, "=")
			if !ok || class == "" {
				return usagef("%q: want CLASS=N or CLASS=unlimited", arg)
			}
			n, err := parseLimit(text)
			if err != nil {
				return err
			}
			limits = append(limits, api.QuotaLimit{Owner: args[0], Class: class, Limit: n})
			classes = append(classes, class)
		}
		for _, l := range limits {
			if err := q.SetQuotaLimit(ctx, l); err != nil {
				return err
			}
		}
		return printUsage(ctx, a, q, args[0], classes)
	})
}

// printUsage shows an owner's usage of some classes.
func printUsage(ctx context.Context, a *app, q api.Quotas, owner string, classes []string) error {
	v, err := usageViews(ctx, q, owner)
	if err != nil {
		return err
	}
	return a.print(slices.DeleteFunc(v, func(u quotaUsageView) bool { return !slices.Contains(classes, u.Class) }))
}

func newQuotaLimitUnset(a *app) *cobra.Command {
	return quotaVerb(a, &cobra.Command{
		Use: "unset OWNER CLASS...", Short: "Have the classes' defaults count for an owner again",
		Example: `  mpoolctl quota limit unset amrith database.instance`, Args: cobra.MinimumNArgs(2),
	}, func(ctx context.Context, q api.Quotas, args []string) error {
		for _, class := range args[1:] {
			if err := q.UnsetQuotaLimit(ctx, args[0], class); err != nil {
				return err
			}
		}
		return printUsage(ctx, a, q, args[0], args[1:])
	})
}

// quotaLimitView is a limit that is set for an owner.
type quotaLimitView struct {
	Class string    `json:"class"`
	Owner string    `json:"owner"`
	Limit limitJSON `json:"limit"`
}

type quotaLimitsView []quotaLimitView

func (v quotaLimitsView) show(w io.Writer, quiet bool) error {
	var rows [][]string
	for _, l := range v {
		if quiet {
			if err := writeLines(w, l.Owner+" "+l.Class); err != nil {
				return err
			}
		}
		rows = append(rows, []string{l.Owner, l.Class, limitText(int64(l.Limit))})
	}
	if quiet {
		return nil
	}
	return writeTable(w, []string{"OWNER", "CLASS", "LIMIT"}, rows)
}

func newQuotaLimitList(a *app) *cobra.Command {
	return quotaVerb(a, &cobra.Command{
		Use: "list [OWNER]", Short: "List the limits that are set", Example: `  mpoolctl quota limit list`, Args: cobra.MaximumNArgs(1),
	}, func(ctx context.Context, q api.Quotas, args []string) error {
		list, err := q.QuotaLimits(ctx, strings.Join(args, ""))
		if err != nil {
			return err
		}
		v := make(quotaLimitsView, len(list))
		for i, l := range list {
			v[i] = quotaLimitView{Class: l.Class, Owner: l.Owner, Limit: limitJSON(l.Limit)}
		}
		return a.print(v)
	})
}

// quotaOwnerView is an owner.
type quotaOwnerView struct {
	Owner  string `json:"owner"`
	Parent string `json:"parent"` // "": at the top
}

type quotaOwnersView []quotaOwnerView

func (v quotaOwnerView) show(w io.Writer, quiet bool) error { return quotaOwnersView{v}.show(w, quiet) }

func (v quotaOwnersView) show(w io.Writer, quiet bool) error {
	var rows [][]string
	for _, o := range v {
		if quiet {
			if err := writeLines(w, o.Owner); err != nil {
				return err
			}
		}
		rows = append(rows, []string{o.Owner, o.Parent})
	}
	if quiet {
		return nil
	}
	return writeTable(w, []string{"OWNER", "PARENT"}, rows)
}

func newQuotaOwnerAdd(a *app) *cobra.Command {
	var parent string
	c := quotaVerb(a, &cobra.Command{
		Use: "add NAME", Short: "Add an owner, at the top or below another one",
		Long: `Add an owner, at the top or below another one.

A name is 1 to 63 bytes of printable text, spaces included, without '/': that separates
the names of a path, parent/child, by which an owner is named wherever its own name is
several owners'. A path has 255 bytes and 62 names at most.`,
		Example: `  mpoolctl quota owner add john --parent databases`, Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, q api.Quotas, args []string) error {
		path, err := q.AddQuotaOwner(ctx, args[0], parent)
		if err != nil {
			return err
		}
		return a.print(quotaOwnerView{Owner: path, Parent: parent})
	})
	c.Flags().StringVar(&parent, "parent", "", "the `OWNER` above it")
	return c
}

func newQuotaOwnerList(a *app) *cobra.Command {
	return quotaVerb(a, &cobra.Command{
		Use: "list", Short: "List the owners by their paths", Example: `  mpoolctl quota owner list`, Args: cobra.NoArgs,
	}, func(ctx context.Context, q api.Quotas, _ []string) error {
		p, ok := q.(api.Pool)
		if !ok {
			return api.Errorf(api.ENOTSUP, "", "the pool has no owners")
		}
		list, err := p.Owners(ctx)
		if err != nil {
			return err
		}
		paths := map[uint32]string{0: ""}
		v := quotaOwnersView{}
		for _, o := range list { // one above comes before those below
			if o.Index == 0 {
				continue
			}
			path := o.Name
			if o.Parent != 0 {
				path = paths[o.Parent] + "/" + o.Name
			}
			paths[o.Index] = path
			v = append(v, quotaOwnerView{Owner: path, Parent: paths[o.Parent]})
		}
		return a.print(v)
	})
}
