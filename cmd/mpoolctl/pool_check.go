package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mpool/check"
)

// checkOptions are the options of pool check.
type checkOptions struct {
	data   bool
	repair bool
}

func newPoolCheck(a *app) *cobra.Command {
	var o checkOptions
	c := &cobra.Command{
		Use:   "check NAME|DEV...",
		Short: "Check an inactive pool's drives; with --repair, mend them",
		Long: `Check all drives of a pool that is not active: superblocks, metadata, every log
and, with --data, all data of all mblocks. Name the devices or files, or the pool by
name or UUID: its drives are then looked for among the host's block devices or,
for a pool in regular files, among the files that follow the name. No daemon is
needed. The exit code is 1 when there is a problem. Notes are no problems: they are
what a crash may leave and the next activation mends.

Without --repair nothing is changed. With it, what the drives say twice is mended:
lost or differing superblock copies, the lost copy of a log's last page, a log that a
compaction has replaced. What was mended is checked again; the exit code is 0 when no
problem remains. What has no second copy is reported and left, and so is everything
when it is not certain what is right. A repair that is cut off can be begun again.`,
		Example: `  mpoolctl pool check data
  mpoolctl pool check --data /dev/nvme1n1 /dev/nvme2n1
  mpoolctl pool check --repair --yes data ./drive0 ./drive1`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return runPoolCheck(ctx, a, args, o)
		}),
	}
	c.Flags().BoolVar(&o.data, "data", false, "verify all data too")
	c.Flags().BoolVar(&o.repair, "repair", false, "mend what has redundancy")
	return c
}

func runPoolCheck(ctx context.Context, a *app, args []string, o checkOptions) error {
	if o.repair && !a.interactive() {
		if err := a.confirm(ctx, "write to the drives of the pool"); err != nil {
			return err
		}
	}
	devices, err := a.offlineDevices(ctx, args)
	if err != nil {
		return err
	}
	bar := &checkProgress{a: a}
	defer func() { bar.end() }()
	opt := check.Options{Data: o.data}
	if o.data {
		opt.Progress = bar.show
	}
	var r check.Report
	if o.repair {
		opt.Confirm = func(mended []check.Problem) error {
			bar.end()
			return a.confirmMending(ctx, mended)
		}
		r, err = check.Repair(ctx, devices, opt)
	} else {
		r, err = check.Run(ctx, devices, opt)
	}
	if err != nil {
		return err
	}
	bar.end()
	v := newCheckView(r)
	if err := a.print(v); err != nil {
		return err
	}
	if r.OK {
		return nil
	}
	what := "found"
	if o.repair {
		what = "left"
	}
	return reportedError{api.Errorf(api.ECORRUPT, "", "%s %s", plural(v.remaining(), "problem"), what)}
}

// confirmMending shows what would be mended and asks.
func (a *app) confirmMending(ctx context.Context, mended []check.Problem) error {
	if a.yes {
		return nil
	}
	for _, p := range newProblemViews(mended) {
		if err := p.show(a.stderr, "mendable"); err != nil {
			return err
		}
	}
	return a.confirm(ctx, "mend %s", map[bool]string{true: "this", false: fmt.Sprintf("these %d", len(mended))}[len(mended) == 1])
}

// checkProgress shows how far a check of data is. A repair begins again when it
// looks at what it has mended.
type checkProgress struct {
	a     *app
	bar   progress
	begun bool
	last  int64
}

func (p *checkProgress) show(done, total int64) {
	if !p.begun || done < p.last {
		p.end()
		p.bar, p.begun = p.a.newProgress("verifying", total), true
	}
	p.bar.grow(total)
	p.bar.add(done - p.last)
	p.last = done
}

func (p *checkProgress) end() {
	p.bar.end()
	p.bar, p.begun, p.last = progress{}, false, 0
}
