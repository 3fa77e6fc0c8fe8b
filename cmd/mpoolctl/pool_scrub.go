package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// scrubOptions are the options of pool scrub.
type scrubOptions struct {
	rate int64 // bytes a second; 0: no limit
	from cursorValue
}

const (
	scrubStep     = 8 << 20  // bytes of a step
	scrubMinStep  = 64 << 10 // of one with a low rate
	scrubListed   = 10_000   // problems that are listed
	stepsInSecond = 4        // at least, with a rate
)

func newPoolScrub(a *app) *cobra.Command {
	var o scrubOptions
	c := &cobra.Command{
		Use:   "scrub NAME",
		Short: "Read and verify everything in an active pool",
		Long: `Read everything in an active pool from its drives and verify it: superblocks,
metadata, all records of logs, all data and checksums of mblocks. It is done in the
background of other work, at low priority, and takes no references: nobody is refused
anything because of it. Containers that are being written are left out, and counted.

The exit code is 1 when something is wrong. Each finding is also an event, and the
object's readers get ECORRUPT. Nothing is mended: superblock copies are by the next
activation, and what else has a second copy by pool check --repair; data is to be
stored again from elsewhere.

One that is interrupted says where it was, and --from goes on there, also after the
daemon was restarted.`,
		Example: `  mpoolctl pool scrub data
  mpoolctl pool scrub data --rate 50MiB
  mpoolctl pool scrub data --from 010000000000002a:0`,
		Args: cobra.ExactArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return a.withDaemon(ctx, func(d daemon) error { return runPoolScrub(ctx, a, d, args[0], o) })
		}),
	}
	c.Flags().Var((*sizeValue)(&o.rate), "rate", "verify at most so much a second")
	c.Flags().Var(&o.from, "from", "go on from `CURSOR`, which a scrub that was interrupted has said")
	return c
}

// cursorValue is a flag that holds a scrub's cursor: an object's id and a place.
type cursorValue api.ScrubCursor

func (v *cursorValue) String() string {
	if *v == (cursorValue{}) {
		return ""
	}
	return fmt.Sprintf("%v:%d", v.Object, v.Place)
}

func (v *cursorValue) Set(s string) error {
	id, place, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(strings.TrimPrefix(id, "0x"), 16, 64)
	at, perr := strconv.ParseUint(place, 10, 64)
	if !ok || err != nil || perr != nil {
		return fmt.Errorf("cursor %q: want what a scrub has said, as 010000000000002a:0", s)
	}
	v.Object, v.Place = layout.ObjectID(n), at
	return nil
}

func (v *cursorValue) Type() string { return "CURSOR" }

// scrubView is a scrub as it is shown.
type scrubView struct {
	OK            bool          `json:"ok"` // nothing was found
	Done          bool          `json:"done"`
	Next          string        `json:"next"` // where to go on; "" when it is done
	Pool          string        `json:"pool"`
	VerifiedBytes int64         `json:"verified_bytes"`
	Objects       int64         `json:"objects"`
	Skipped       int64         `json:"skipped"` // containers that were being written
	Problems      []problemView `json:"problems"`
	Dropped       int           `json:"dropped"` // problems that are not listed
}

func runPoolScrub(ctx context.Context, a *app, d daemon, pool string, o scrubOptions) error {
	v := &scrubView{Pool: pool, Problems: []problemView{}}
	size := int64(scrubStep)
	if o.rate > 0 {
		size = min(max(o.rate/stepsInSecond, scrubMinStep), scrubStep)
	}
	cursor := api.ScrubCursor(o.from)
	bar := a.newProgress("scrubbing", -1)
	defer bar.end()
	begin := time.Now()
	var err error
	for !v.Done && err == nil {
		var step api.ScrubStep
		if step, err = d.ScrubPool(ctx, pool, cursor, size); err != nil {
			break
		}
		cursor = step.Next
		v.add(&step)
		bar.grow(step.Total)
		bar.add(step.Covered)
		if o.rate > 0 && !v.Done {
			err = pause(ctx, time.Until(begin.Add(time.Duration(float64(v.VerifiedBytes)/float64(o.rate)*float64(time.Second)))))
		}
	}
	bar.end()
	v.OK = len(v.Problems) == 0 && v.Dropped == 0
	at := cursorValue(cursor)
	v.Next = at.String()
	if v.Done {
		v.Next = ""
	}
	if err != nil && (at == cursorValue{} || !errors.Is(context.Cause(ctx), api.ECANCELED)) {
		return err
	}
	if perr := a.print(v); perr != nil {
		return perr
	}
	switch {
	case err != nil:
		return reportedError{err}
	case !v.OK:
		return reportedError{api.Errorf(api.ECORRUPT, "", "%s found", plural(len(v.Problems)+v.Dropped, "problem"))}
	}
	return nil
}

// pause waits, or until the context ends, whose error it returns.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return api.ContextError("", context.Cause(ctx))
	}
}

func (v *scrubView) add(s *api.ScrubStep) {
	v.Done = s.Done
	v.VerifiedBytes += s.Verified
	v.Objects += s.Objects
	v.Skipped += s.Skipped
	for i := range s.Problems {
		p := &s.Problems[i]
		if len(v.Problems) == scrubListed {
			v.Dropped++
			continue
		}
		x := problemView{Code: p.Code.Error(), Device: p.Device, Offset: p.Offset, Text: p.Text}
		if p.Object != 0 {
			x.Object = p.Object.String()
		}
		v.Problems = append(v.Problems, x)
	}
}

func (v *scrubView) show(w io.Writer, quiet bool) error {
	for _, p := range v.Problems {
		if err := p.show(w, "problem"); err != nil {
			return err
		}
	}
	if quiet {
		return nil
	}
	result := "clean"
	switch {
	case !v.Done:
		result = "interrupted; go on with --from " + v.Next
	case !v.OK:
		result = plural(len(v.Problems)+v.Dropped, "problem")
	}
	fields := []string{"pool", v.Pool, "verified", showBytes(v.VerifiedBytes), "objects", strconv.FormatInt(v.Objects, 10)}
	if v.Skipped > 0 {
		fields = append(fields, "left out", plural(int(v.Skipped), "container")+" being written")
	}
	return writeFields(w, append(fields, "result", result)...)
}
