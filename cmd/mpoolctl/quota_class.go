package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

// quotaClassView is a resource class as it is shown.
type quotaClassView struct {
	Name    string    `json:"name"`
	Unit    string    `json:"unit"`
	Total   limitJSON `json:"total"`
	Default limitJSON `json:"default"`
	Min     int64     `json:"min"`
	Max     limitJSON `json:"max"`
	Step    int64     `json:"step"`
	BuiltIn bool      `json:"built_in"`
}

func newQuotaClassView(c *api.QuotaClass) quotaClassView {
	unit := "count"
	if c.Bytes {
		unit = "bytes"
	}
	return quotaClassView{
		Name: c.Name, Unit: unit, Total: limitJSON(c.Total), Default: limitJSON(c.Default),
		Min: c.Min, Max: limitJSON(c.Max), Step: c.Step, BuiltIn: c.BuiltIn,
	}
}

func (v quotaClassView) show(w io.Writer, quiet bool) error {
	return quotaClassesView{v}.show(w, quiet)
}

type quotaClassesView []quotaClassView

func (v quotaClassesView) show(w io.Writer, quiet bool) error {
	if quiet {
		for _, c := range v {
			if err := writeLines(w, c.Name); err != nil {
				return err
			}
		}
		return nil
	}
	var rows [][]string
	for _, c := range v {
		text := func(n int64) string {
			if n == api.QuotaUnlimited {
				return limitText(n)
			}
			return amountText(n, c.Unit == "bytes")
		}
		rows = append(rows, []string{
			c.Name, c.Unit, text(int64(c.Total)), text(int64(c.Default)), text(c.Min), text(int64(c.Max)), text(c.Step),
		})
	}
	return writeTable(w, []string{"CLASS", "UNIT", "TOTAL", "DEFAULT", "MIN", "MAX", "STEP"}, rows)
}

func newQuotaClassDefine(a *app) *cobra.Command {
	var unit string
	least, step := limitValue(1), limitValue(1)
	total, byDefault, most := limitValue(api.QuotaUnlimited), limitValue(api.QuotaUnlimited), limitValue(api.QuotaUnlimited)
	c := quotaVerb(a, &cobra.Command{
		Use:   "define NAME",
		Short: "Define a resource class, or define it anew; claims stay as they are",
		Long: `Define a resource class, or define it anew; claims stay as they are.

Of the classes that are built in (mpool.bytes.capacity, mpool.bytes.staging,
mpool.mblocks, mpool.mlogs) the total and the default can be set.`,
		Example: `  mpoolctl quota class define database.instance --total 2000 --default 25
  mpoolctl quota class define storage --unit bytes --default 20TB`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, q api.Quotas, args []string) error {
		if unit != "count" && unit != "bytes" {
			return usagef("unit %q: want count or bytes", unit)
		}
		class := api.QuotaClass{
			Name: args[0], Bytes: unit == "bytes", Total: int64(total), Default: int64(byDefault),
			Min: int64(least), Max: int64(most), Step: int64(step),
		}
		if err := q.DefineQuotaClass(ctx, class); err != nil {
			return err
		}
		list, err := q.QuotaClasses(ctx)
		for i := range list {
			if list[i].Name == args[0] {
				class = list[i]
			}
		}
		if err != nil {
			return err
		}
		return a.print(newQuotaClassView(&class))
	})
	f := c.Flags()
	f.StringVar(&unit, "unit", "count", "what is counted: `count|bytes`")
	f.Var(&total, "total", "limit of all owners together: N or unlimited")
	f.Var(&byDefault, "default", "limit of an owner that has none of its own: N or unlimited")
	f.Var(&least, "min", "least of one claim")
	f.Var(&most, "max", "most of one claim: N or unlimited")
	f.Var(&step, "step", "a claim is a multiple of it")
	return c
}

func newQuotaClassList(a *app) *cobra.Command {
	return quotaVerb(a, &cobra.Command{
		Use: "list", Short: "List the resource classes", Example: `  mpoolctl quota class list`, Args: cobra.NoArgs,
	}, func(ctx context.Context, q api.Quotas, _ []string) error {
		list, err := q.QuotaClasses(ctx)
		if err != nil {
			return err
		}
		v := make(quotaClassesView, len(list))
		for i := range list {
			v[i] = newQuotaClassView(&list[i])
		}
		return a.print(v)
	})
}

func newQuotaClassRemove(a *app) *cobra.Command {
	return quotaVerb(a, &cobra.Command{
		Use: "remove NAME", Short: "Remove a class of which nothing is claimed, with its limits",
		Example: `  mpoolctl quota class remove database.instance`, Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, q api.Quotas, args []string) error {
		list, err := q.QuotaClasses(ctx)
		if err != nil {
			return err
		}
		v := quotaClassView{Name: args[0]}
		for i := range list {
			if list[i].Name == args[0] {
				v = newQuotaClassView(&list[i])
			}
		}
		if err := q.RemoveQuotaClass(ctx, args[0]); err != nil {
			return err
		}
		return a.print(v)
	})
}
