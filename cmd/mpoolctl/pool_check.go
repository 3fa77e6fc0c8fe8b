package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mpool/check"
)

func newPoolCheck(a *app) *cobra.Command {
	var data bool
	c := &cobra.Command{
		Use:   "check DEV...",
		Short: "Check an inactive pool's devices, without changing anything",
		Long: `Check all devices of a pool that is not active: superblocks, metadata, every log
and, with --data, all data of all mblocks. Nothing is changed and no daemon is
needed. The exit code is 1 when there is a problem. Notes are no problems: they
are what a crash may leave and the next activation mends.`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return runPoolCheck(ctx, a, args, data)
		}),
	}
	c.Flags().BoolVar(&data, "data", false, "verify all data too")
	return c
}

func runPoolCheck(ctx context.Context, a *app, args []string, data bool) error {
	if err := checkDevices(ctx, a, args); err != nil {
		return err
	}
	o := check.Options{Data: data}
	if data {
		bar, last := a.newProgress("verifying", 0), int64(0)
		defer bar.end()
		o.Progress = func(done, total int64) {
			bar.grow(total)
			bar.add(done - last)
			last = done
		}
	}
	r, err := check.Run(ctx, absolutePaths(args), o)
	if err != nil {
		return err
	}
	if err := a.print(newCheckView(r)); err != nil {
		return err
	}
	if r.OK {
		return nil
	}
	return reportedError{api.Errorf(api.ECORRUPT, "", "%s found", plural(len(r.Problems), "problem"))}
}

// checkDevices turns a pool's name, which is no device, into an error that says
// what to do.
func checkDevices(ctx context.Context, a *app, args []string) error {
	for _, arg := range args {
		if strings.Contains(arg, "/") {
			continue
		}
		if _, err := os.Stat(arg); err == nil {
			continue
		}
		var info api.PoolInfo
		err := a.withDaemon(ctx, func(d daemon) (err error) {
			info, err = findPool(ctx, d, arg)
			return err
		})
		if err != nil {
			return api.Errorf(api.ENOENT, "", "there is no device %s; name the devices of an inactive pool", arg)
		}
		var paths []string
		for _, d := range info.Drives {
			paths = append(paths, d.Path)
		}
		return api.Errorf(api.EBUSY, "", "pool %s is active: deactivate it, then check %s",
			info.Name, strings.Join(paths, " "))
	}
	return nil
}

// checkView is a report as it is shown.
type checkView struct {
	OK            bool          `json:"ok"`
	Pool          string        `json:"pool"`
	UUID          string        `json:"uuid"`
	Epoch         uint64        `json:"epoch"`
	Problems      []problemView `json:"problems"`
	Notes         []problemView `json:"notes"`
	Dropped       int           `json:"dropped"` // findings that are not listed
	Superblocks   int           `json:"superblocks"`
	Records       int64         `json:"records"`
	Mblocks       int64         `json:"mblocks"`
	Mlogs         int64         `json:"mlogs"`
	LogPages      int64         `json:"log_pages"`
	VerifiedBytes int64         `json:"verified_bytes"`
	TotalBytes    int64         `json:"total_bytes"`
	FreeBytes     int64         `json:"free_bytes"`
	LiveBytes     int64         `json:"live_bytes"`
	OverheadBytes int64         `json:"overhead_bytes"`
}

type problemView struct {
	Code     string `json:"code"`
	Object   string `json:"object"` // "": none
	Device   string `json:"device"` // "": none
	Offset   int64  `json:"offset"`
	Text     string `json:"text"`
	Repaired bool   `json:"repaired"`
}

func newCheckView(r check.Report) checkView {
	return checkView{
		OK: r.OK, Pool: r.Pool, UUID: r.UUID, Epoch: r.Epoch,
		Problems: newProblemViews(r.Problems), Notes: newProblemViews(r.Notes), Dropped: r.Dropped,
		Superblocks: r.Superblocks, Records: r.Records, Mblocks: r.Mblocks, Mlogs: r.Mlogs, LogPages: r.LogPages,
		VerifiedBytes: r.VerifiedBytes, TotalBytes: r.Space.Total, FreeBytes: r.Space.Free,
		LiveBytes: r.Space.Live, OverheadBytes: r.Space.Overhead,
	}
}

func newProblemViews(problems []check.Problem) []problemView {
	views := make([]problemView, 0, len(problems))
	for _, p := range problems {
		v := problemView{Code: p.Code, Device: p.Device, Offset: p.Offset, Text: p.Text, Repaired: p.Repaired}
		if p.Object != 0 {
			v.Object = p.Object.String()
		}
		views = append(views, v)
	}
	return views
}

func (v checkView) show(w io.Writer, quiet bool) error {
	for _, p := range v.Problems {
		if err := p.show(w, "problem"); err != nil {
			return err
		}
	}
	if quiet {
		return nil
	}
	for _, p := range v.Notes {
		if err := p.show(w, "note"); err != nil {
			return err
		}
	}
	verdict := "clean"
	if !v.OK {
		verdict = plural(len(v.Problems), "problem")
	}
	pool := "none"
	if v.UUID != "" {
		pool = fmt.Sprintf("%s (%s)", v.Pool, v.UUID)
	}
	return writeFields(w,
		"pool", pool, "superblocks", strconv.Itoa(v.Superblocks),
		"metadata records", strconv.FormatInt(v.Records, 10), "mblocks", strconv.FormatInt(v.Mblocks, 10),
		"mlogs", strconv.FormatInt(v.Mlogs, 10), "log pages", strconv.FormatInt(v.LogPages, 10),
		"data verified", showBytes(v.VerifiedBytes), "result", verdict)
}

func (p problemView) show(w io.Writer, what string) error {
	place := ""
	if p.Object != "" {
		place += " object " + p.Object
	}
	if p.Device != "" {
		place += fmt.Sprintf(" at %s+%d", p.Device, p.Offset)
	}
	_, err := fmt.Fprintf(w, "%s: %s%s: %s\n", what, p.Code, place, p.Text)
	return err
}
