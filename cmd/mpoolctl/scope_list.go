package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/client"
)

func newScopeList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List what is used and may be used now",
		Long: `List what is used and may be used now, by scope: system (all of it), transient
(connections that have not said hello), service:POOL, user:UID, client:UID/PID (a
process), session:N; and by kind: memory, inbound, connections, descriptors,
tasks_high, tasks_medium, tasks_low, tasks. ORIGIN is where the limit is from:
default, limits or file (the configuration), set (mpoolctl scope set). REFUSED counts
what the scope refused. Kinds of which nothing is used and that have no limit are left
out, but with --json. Administrators see all scopes, others the daemon's and their own.`,
		Example: `  mpoolctl scope list
  mpoolctl --json scope list`,
		Args: cobra.NoArgs,
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			return a.withDaemon(ctx, func(d daemon) error { return a.listScopes(ctx, d, "") })
		}),
	}
}

// listScopes writes the scope of a name or, with "", all.
func (a *app) listScopes(ctx context.Context, d daemon, name string) error {
	out := a.newScopeWriter()
	for e, err := range d.Scopes(ctx, name) {
		if err != nil {
			return errors.Join(out.flush(), err)
		}
		if err := out.write(e, name != ""); err != nil {
			return err
		}
	}
	return out.flush()
}

// scopeWriter writes scopes.
type scopeWriter struct{ *rowWriter }

func (a *app) newScopeWriter() scopeWriter {
	return scopeWriter{newRowWriter(a, "%-20v  %-12s  %12s  %12s  %7s  %s", "SCOPE", "KIND", "USED", "LIMIT", "REFUSED", "ORIGIN")}
}

// write writes an entry; all also when there is nothing to tell.
func (w scopeWriter) write(e client.ScopeInfo, all bool) error {
	v := newScopeView(e)
	if !all && !w.a.json && e.Used == 0 && e.Refused == 0 && e.Limit == "unlimited" {
		return nil
	}
	return w.rowWriter.write(v, v.Scope, v.Kind, v.amount(v.Used), v.limit(), strconv.FormatUint(v.Refused, 10), v.Origin)
}

// scopeView is one kind of one scope as it is shown.
type scopeView struct {
	Scope   string `json:"scope"`
	Kind    string `json:"kind"`
	Used    int64  `json:"used"`
	Limit   any    `json:"limit"` // a number, "unlimited" or "block"
	Origin  string `json:"origin"`
	Refused uint64 `json:"refused"`
}

func newScopeView(e client.ScopeInfo) scopeView {
	v := scopeView{Scope: e.Scope, Kind: e.Kind, Used: e.Used, Limit: e.Limit, Origin: e.Origin, Refused: e.Refused}
	if n, err := strconv.ParseInt(e.Limit, 10, 64); err == nil {
		v.Limit = n
	}
	return v
}

// amount returns a number of the kind for people.
func (v scopeView) amount(n int64) string {
	if v.Kind == "memory" {
		return formatSize(n)
	}
	return strconv.FormatInt(n, 10)
}

func (v scopeView) limit() string {
	switch l := v.Limit.(type) {
	case int64:
		return v.amount(l)
	case string:
		return l
	}
	return ""
}
