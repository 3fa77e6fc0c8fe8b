package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
)

func newCreditList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list [POOL]",
		Short: "List who has credits on objects, and who waits for them",
		Long: `List who has credits on the objects of one pool or, without POOL, of all that are
active, and who waits for them. A row is one range of one holder's. STATE is

  granted      lent to a connection, which holds it or keeps it for later
  held         held by a handle that is open, or by an operation under way
  called_back  either, and somebody else waits for it
  waiting      asked for

What handles hold is listed of objects of which some connection has a credit or asks
for one; of others handle list shows who has them open.

TOKEN says which of two credits is the later one. EXPIRES is when a credit that was
called back is taken from its holder, who is refused with ESTALE from then on.
Administrators see everybody's, others those of their own user.`,
		Example: `  mpoolctl credit list data
  mpoolctl --json credit list | jq 'select(.state == "waiting")'`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return a.withDaemon(ctx, func(d daemon) error {
				names := args
				if len(names) == 0 {
					pools, err := d.Pools(ctx)
					if err != nil {
						return err
					}
					for i := range pools {
						names = append(names, pools[i].Name)
					}
				}
				out := a.newCreditWriter()
				for _, name := range names {
					for c, err := range d.EachCredit(ctx, name) {
						if err != nil {
							return errors.Join(out.flush(), err)
						}
						v := newCreditView(name, &c)
						if err := out.write(v, v.Resource, v.cells()...); err != nil {
							return errors.Join(err, out.flush())
						}
					}
				}
				return out.flush()
			})
		}),
	}
}
