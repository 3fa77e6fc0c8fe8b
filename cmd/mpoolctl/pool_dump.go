package main

import (
	"bufio"
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/mpool/check"
)

func newPoolDump(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "dump DEV...",
		Short: "Print an inactive pool's superblocks and metadata records",
		Long: `Print what is on the devices of a pool that is not active: superblocks, metadata
logs and their records. The text is for people and may change; with --json each
line is an object with the field "line".`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			if err := checkDevices(ctx, a, args); err != nil {
				return err
			}
			if !a.json {
				out := bufio.NewWriter(a.stdout)
				return errors.Join(check.Dump(ctx, out, absolutePaths(args), check.Options{}), out.Flush())
			}
			return a.jsonLines(func(w io.Writer) error {
				return check.Dump(ctx, w, absolutePaths(args), check.Options{})
			})
		}),
	}
}

// jsonLines prints each line that f writes as a JSON object.
func (a *app) jsonLines(f func(w io.Writer) error) error {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := f(w)
		written <- errors.Join(err, w.Close())
	}()
	var err error
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for err == nil && lines.Scan() {
		err = a.printJSON(map[string]string{"line": lines.Text()})
	}
	err = errors.Join(err, lines.Err(), r.Close())
	return errors.Join(<-written, err)
}
