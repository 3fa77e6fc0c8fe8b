package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/client"
)

// scopeKinds are the keys that scope set knows.
var scopeKinds = []string{
	"memory", "inbound", "outbound", "connections", "descriptors", "tasks_high", "tasks_medium", "tasks_low", "tasks",
}

func newScopeSet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "set NAME KIND=VALUE...",
		Short: "Change limits of a scope while the daemon runs",
		Long: `Change limits of a scope, until the daemon ends or reads its configuration again
(SIGHUP), and show it. NAME is one scope, such
as system, service:data or user:1000, open or not, or service, user, client or session
for each of them that has no limit of its own. KIND is one of

  memory                                    bytes
  inbound, outbound, connections            connections
  descriptors                               open files and sockets
  tasks_high, tasks_medium, tasks_low, tasks  requests, and steps in the background

VALUE is a number, a size, a share of the machine's such as 5% (of memory and
descriptors), unlimited or block; default takes back what was set. What is used above
a limit stays, and what is new is refused. The configuration file is for what is to
last.`,
		Example: `  mpoolctl scope set client memory=64MiB tasks=32
  mpoolctl scope set user:1000 inbound=block
  mpoolctl scope set system memory=default`,
		Args: cobra.MinimumNArgs(2),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			limits, err := parseScopeLimits(args[1:])
			if err != nil {
				return err
			}
			return a.withDaemon(ctx, func(d daemon) error {
				list, err := d.SetScope(ctx, args[0], limits)
				if err != nil {
					return err
				}
				out := a.newScopeWriter()
				var errs []error
				for _, e := range list {
					errs = append(errs, out.write(e, true))
				}
				return errors.Join(append(errs, out.flush())...)
			})
		}),
	}
}

// parseScopeLimits reads KIND=VALUE pairs. A kind given twice counts as it was given
// last.
func parseScopeLimits(pairs []string) ([]client.ScopeLimit, error) {
	var list []client.ScopeLimit
	for _, pair := range pairs {
		kind, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, usagef("%q: want KIND=VALUE", pair)
		}
		if !slices.Contains(scopeKinds, kind) {
			return nil, usagef("%s: no such kind: want one of %s", kind, strings.Join(scopeKinds, ", "))
		}
		list = slices.DeleteFunc(list, func(l client.ScopeLimit) bool { return l.Kind == kind })
		list = append(list, client.ScopeLimit{Kind: kind, Limit: value})
	}
	return list, nil
}
