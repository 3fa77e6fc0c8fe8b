package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

// quotaPool is the option that says whose quotas are meant.
type quotaPool struct {
	a    *app
	name string
}

// on declares the option of a command.
func (q *quotaPool) on(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&q.name, "pool", "", "whose quotas: `POOL` (not needed where one pool is active)")
	return c
}

// do calls f with the quotas of the pool that is meant.
func (q *quotaPool) do(ctx context.Context, f func(api.Quotas) error) error {
	return q.a.withDaemon(ctx, func(d daemon) error {
		name := q.name
		if name == "" {
			pools, err := d.Pools(ctx)
			switch {
			case err != nil:
				return err
			case len(pools) == 0:
				return api.Errorf(api.ENOENT, "", "no pool is active")
			case len(pools) > 1:
				return usagef("%d pools are active: say whose quotas are meant with --pool", len(pools))
			}
			name = pools[0].Name
		}
		p, err := d.OpenPool(ctx, name)
		if err != nil {
			return err
		}
		qs, ok := p.(api.Quotas)
		if ok {
			err = f(qs)
		} else {
			err = api.Errorf(api.ENOTSUP, "", "the pool has no quotas")
		}
		if closeErr := p.Close(); err == nil {
			err = closeErr
		}
		return err
	})
}

// quotaVerb declares a verb that works on quotas.
func quotaVerb(a *app, c *cobra.Command, run func(ctx context.Context, q api.Quotas, args []string) error) *cobra.Command {
	on := &quotaPool{a: a}
	c.RunE = a.verb(func(ctx context.Context, args []string) error {
		return on.do(ctx, func(q api.Quotas) error { return run(ctx, q, args) })
	})
	return on.on(c)
}

func newQuota(a *app) *cobra.Command {
	class := noun("class", "Resource classes", newQuotaClassDefine(a), newQuotaClassList(a), newQuotaClassRemove(a))
	limit := noun("limit", "Limits of owners", newQuotaLimitSet(a), newQuotaLimitList(a), newQuotaLimitUnset(a))
	owner := noun("owner", "Owners, a tree", newQuotaOwnerAdd(a), newQuotaOwnerList(a))
	return noun("quota", "Who may hold how much", class, limit, owner, newQuotaUsage(a),
		newQuotaReserve(a), newQuotaProvision(a), newQuotaResize(a), newQuotaRelease(a),
		newQuotaTransfer(a), newQuotaExpire(a), newQuotaClaims(a))
}

// parseLimit reads a limit: a number, which may have a unit, or "unlimited".
func parseLimit(s string) (int64, error) {
	if s == "unlimited" {
		return api.QuotaUnlimited, nil
	}
	n, err := parseSize(s)
	if err != nil || n < 0 {
		return 0, usagef("limit %q: want a number from 0, which may have a unit such as GiB, or unlimited", s)
	}
	return n, nil
}

// parseAmounts reads CLASS=N arguments.
func parseAmounts(args []string) ([]api.QuotaAmount, error) {
	list := make([]api.QuotaAmount, len(args))
	for i, arg := range args {
		class, text, ok := strings.Cut(arg, "=")
		n, err := parseSize(text)
		if !ok || class == "" || err != nil || n < 0 {
			return nil, usagef("%q: want CLASS=N, such as database.instance=2 or storage=1TB", arg)
		}
		list[i] = api.QuotaAmount{Class: class, N: n}
	}
	return list, nil
}

// limitValue is a flag that holds a limit.
type limitValue int64

func (v *limitValue) String() string { return limitText(int64(*v)) }

func (v *limitValue) Set(s string) error {
	n, err := parseLimit(s)
	*v = limitValue(n)
	return err
}

func (v *limitValue) Type() string { return "N" }

func limitText(n int64) string {
	if n == api.QuotaUnlimited {
		return "unlimited"
	}
	return strconv.FormatInt(n, 10)
}

// limitJSON is a limit in JSON: a number, or "unlimited".
type limitJSON int64

// MarshalJSON implements json.Marshaler.
func (l limitJSON) MarshalJSON() ([]byte, error) {
	if l == api.QuotaUnlimited {
		return []byte(`"unlimited"`), nil
	}
	return strconv.AppendInt(nil, int64(l), 10), nil
}

// amountText writes a number as people read it.
func amountText(n int64, bytes bool) string {
	if bytes && n > 0 {
		return formatSize(n)
	}
	return fmt.Sprint(n)
}
