package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/mpool/check"
)

func newPoolDump(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "dump NAME|DEV...",
		Short: "Print an inactive pool's superblocks and metadata records",
		Long: `Print what is on the drives of a pool that is not active: the superblocks of each,
metadata logs and their records. Drives are named as for pool check. Each line has a
type and name=value pairs; with --json it is an object of these names with the type
as "type". The lines are for people and may change.`,
		Example: `  mpoolctl pool dump /dev/nvme1n1 | less
  mpoolctl --json pool dump data | jq 'select(.type == "operation" and .op == "create")'`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			devices, err := a.offlineDevices(ctx, args)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(a.stdout)
			enc := json.NewEncoder(out)
			enc.SetEscapeHTML(false)
			err = check.Dump(ctx, devices, check.Options{}, func(l *check.Line) error {
				if a.json {
					return enc.Encode(l)
				}
				_, err := out.WriteString(l.String() + "\n")
				return err
			})
			return errors.Join(err, out.Flush())
		}),
	}
}
