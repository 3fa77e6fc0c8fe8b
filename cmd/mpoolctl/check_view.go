package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/mpool-go/mpool/mpool/check"
)

// checkView is a report as it is shown.
type checkView struct {
	OK            bool             `json:"ok"` // no problem, or all repaired
	Pool          string           `json:"pool"`
	UUID          string           `json:"uuid"`
	Epoch         uint64           `json:"epoch"`
	Problems      []problemView    `json:"problems"`
	Notes         []problemView    `json:"notes"`
	Dropped       int              `json:"dropped"` // findings that are not listed
	Superblocks   int              `json:"superblocks"`
	Records       int64            `json:"records"`
	Mblocks       int64            `json:"mblocks"`
	Mlogs         int64            `json:"mlogs"`
	LogPages      int64            `json:"log_pages"`
	VerifiedBytes int64            `json:"verified_bytes"`
	TotalBytes    int64            `json:"total_bytes"`
	FreeBytes     int64            `json:"free_bytes"`
	LiveBytes     int64            `json:"live_bytes"`
	OverheadBytes int64            `json:"overhead_bytes"`
	Drives        []checkDriveView `json:"drives"`
}

// checkDriveView is a drive of the pool's drive table. Its byte counts are 0 when
// the check did not get so far.
type checkDriveView struct {
	Path          string `json:"path"` // "": it was not given
	UUID          string `json:"uuid"`
	Slot          uint16 `json:"slot"`
	Class         string `json:"class"`
	Metadata      bool   `json:"metadata"` // the pool's metadata lies on it
	Generation    uint64 `json:"generation"`
	Epoch         uint64 `json:"epoch"`
	TotalBytes    int64  `json:"total_bytes"`
	FreeBytes     int64  `json:"free_bytes"`
	LiveBytes     int64  `json:"live_bytes"`
	OverheadBytes int64  `json:"overhead_bytes"`
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
	v := checkView{
		OK: r.OK, Pool: r.Pool, UUID: r.UUID, Epoch: r.Epoch,
		Problems: newProblemViews(r.Problems), Notes: newProblemViews(r.Notes), Dropped: r.Dropped,
		Superblocks: r.Superblocks, Records: r.Records, Mblocks: r.Mblocks, Mlogs: r.Mlogs, LogPages: r.LogPages,
		VerifiedBytes: r.VerifiedBytes, TotalBytes: r.Space.Total, FreeBytes: r.Space.Free,
		LiveBytes: r.Space.Live, OverheadBytes: r.Space.Overhead, Drives: make([]checkDriveView, 0, len(r.Drives)),
	}
	for _, d := range r.Drives {
		v.Drives = append(v.Drives, checkDriveView{
			Path: d.Path, UUID: d.UUID, Slot: d.Slot, Class: d.Class.String(), Metadata: d.Metadata,
			Generation: d.Generation, Epoch: d.Epoch, TotalBytes: d.Space.Total, FreeBytes: d.Space.Free,
			LiveBytes: d.Space.Live, OverheadBytes: d.Space.Overhead,
		})
	}
	return v
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

// remaining counts the problems that are not repaired.
func (v checkView) remaining() int {
	n := 0
	for i := range v.Problems {
		if !v.Problems[i].Repaired {
			n++
		}
	}
	return n
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
	pool := "none"
	if v.UUID != "" {
		pool = fmt.Sprintf("%s (%s)", v.Pool, v.UUID)
	}
	fields := []string{
		"pool", pool, "superblocks", strconv.Itoa(v.Superblocks),
		"metadata records", strconv.FormatInt(v.Records, 10), "mblocks", strconv.FormatInt(v.Mblocks, 10),
		"mlogs", strconv.FormatInt(v.Mlogs, 10), "log pages", strconv.FormatInt(v.LogPages, 10),
		"data verified", showBytes(v.VerifiedBytes),
	}
	for _, d := range v.Drives {
		fields = append(fields, fmt.Sprintf("drive %d", d.Slot), d.sentence())
	}
	return writeFields(w, append(fields, "result", v.verdict())...)
}

// sentence says where a drive is and what it has.
func (d *checkDriveView) sentence() string {
	if d.Path == "" {
		return fmt.Sprintf("%s, not given (%s)", d.Class, d.UUID)
	}
	return fmt.Sprintf("%s, %s, %s free of %s", d.Path, d.Class, showBytes(d.FreeBytes), showBytes(d.TotalBytes))
}

func (v checkView) verdict() string {
	left := v.remaining()
	switch repaired := len(v.Problems) - left; {
	case left > 0 && repaired > 0:
		return fmt.Sprintf("%s, %d repaired", plural(left, "problem"), repaired)
	case left > 0:
		return plural(left, "problem")
	case repaired > 0:
		return fmt.Sprintf("clean, %d repaired", repaired)
	}
	return "clean"
}

// show writes a finding on one line; what is the word before it, unless it was
// repaired.
func (p *problemView) show(w io.Writer, what string) error {
	if p.Repaired {
		what = "repaired"
	}
	place := ""
	if p.Object != "" {
		place += " object " + p.Object
	}
	if p.Device != "" {
		place += fmt.Sprintf(" at %s+%d", cell(p.Device), p.Offset)
	}
	_, err := fmt.Fprintf(w, "%s: %s%s: %s\n", what, p.Code, place, oneLine(p.Text))
	return err
}
