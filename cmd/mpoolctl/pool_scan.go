package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mpool/check"
)

func newPoolScan(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "scan [DEV...]",
		Short: "Look for pools on devices, active or not",
		Long: `Look at the superblocks of the devices and files given or, with none, of all block
devices of the host, and say which pools they carry. Nothing is changed and nothing is
taken from who uses it; no daemon is needed, but what the daemon has active is said to
be.

  active      the daemon has it
  inactive    all of its drives are there
  incomplete  drives are missing; the line says which
  damaged     superblocks are lost, or a drive is there twice: see pool check
  destroyed   it was destroyed; what is left is wiped at the next activation

Without root it looks at what it may, and says how many devices it could not.`,
		Example: `  mpoolctl pool scan
  mpoolctl --json pool scan ./drive0 ./drive1 | jq '.[] | select(.state != "active")'`,
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return runPoolScan(ctx, a, absolutePaths(args))
		}),
	}
}

func runPoolScan(ctx context.Context, a *app, devices []string) error {
	named := len(devices) > 0
	if !named {
		var err error
		if devices, err = check.HostDevices(); err != nil {
			return err
		}
	}
	found, unread, err := check.Scan(ctx, devices, check.Options{})
	if err != nil {
		return err
	}
	if named && len(unread) > 0 {
		return unread[0].Err
	}
	a.noteUnread(unread, len(devices))
	var active []api.PoolInfo
	err = a.withDaemon(ctx, func(d daemon) (err error) {
		active, err = d.Pools(ctx)
		return err
	})
	if err != nil {
		active = nil // no daemon, no active pools
	}
	if named {
		active = slices.DeleteFunc(active, func(p api.PoolInfo) bool { return !onDevices(p, found, devices) })
	}
	return a.print(newScanView(found, active))
}

// onDevices says whether an active pool has to do with devices: one is a drive of
// it, or carries it.
func onDevices(p api.PoolInfo, found []check.Found, devices []string) bool {
	for _, f := range found {
		if f.UUID == p.UUID {
			return true
		}
	}
	for _, d := range p.Drives {
		if slices.ContainsFunc(devices, func(dev string) bool { return samePath(dev, d.Path) }) {
			return true
		}
	}
	return false
}

// samePath says whether two paths lead to one place.
func samePath(a, b string) bool {
	if a == b {
		return true
	}
	x, err := filepath.EvalSymlinks(a)
	if err != nil {
		return false
	}
	y, err := filepath.EvalSymlinks(b)
	return err == nil && x == y
}

// foundView is a pool as pool scan shows it.
type foundView struct {
	Name   string           `json:"name"` // "": no superblock is valid
	UUID   string           `json:"uuid"`
	State  string           `json:"state"`
	Text   string           `json:"text"` // what is wrong with it, or ""
	Drives []foundDriveView `json:"drives"`
}

type foundDriveView struct {
	Path      string `json:"path"` // "": missing
	UUID      string `json:"uuid"`
	Class     string `json:"class"`
	Slot      uint16 `json:"slot"`
	State     string `json:"state"`
	SizeBytes int64  `json:"size_bytes"`
}

// scanView is a list of pools.
type scanView []foundView

// newScanView joins what was found on devices with what is active, of which the
// daemon knows better.
func newScanView(found []check.Found, active []api.PoolInfo) scanView {
	view := make(scanView, 0, len(found)+len(active))
	for _, p := range active {
		v := foundView{Name: p.Name, UUID: p.UUID, State: "active"}
		for _, d := range p.Drives {
			v.Drives = append(v.Drives, foundDriveView{
				Path: d.Path, UUID: d.UUID, Class: d.Class.String(), Slot: d.Slot, State: d.State, SizeBytes: d.Size,
			})
		}
		view = append(view, v)
	}
	for _, f := range found {
		if slices.ContainsFunc(active, func(p api.PoolInfo) bool { return p.UUID == f.UUID }) {
			continue
		}
		v := foundView{Name: f.Name, UUID: f.UUID, State: f.State, Text: f.Text}
		for _, d := range f.Drives {
			v.Drives = append(v.Drives, foundDriveView{
				Path: d.Path, UUID: d.UUID, Class: d.Class.String(), Slot: d.Slot, State: d.State, SizeBytes: d.Size,
			})
		}
		view = append(view, v)
	}
	slices.SortStableFunc(view, func(a, b foundView) int {
		return strings.Compare(a.Name+"\x00"+a.UUID, b.Name+"\x00"+b.UUID)
	})
	return view
}

func (v scanView) show(w io.Writer, quiet bool) error {
	rows := make([][]string, 0, len(v))
	for _, p := range v {
		if quiet {
			if p.Name == "" {
				continue
			}
			if err := writeLines(w, p.Name); err != nil {
				return err
			}
			continue
		}
		for _, d := range p.Drives {
			rows = append(rows, []string{
				orDash(p.Name), p.State, strconv.Itoa(int(d.Slot)), orDash(d.Path), d.Class, d.State, formatSize(d.SizeBytes), orDash(p.UUID),
			})
		}
	}
	if quiet {
		return nil
	}
	if err := writeTable(w, []string{"POOL", "STATE", "SLOT", "DRIVE", "CLASS", "DRIVE STATE", "SIZE", "UUID"}, rows); err != nil {
		return err
	}
	for _, p := range v {
		if p.Text == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s: %s: %s\n", cell(orDash(p.Name)), p.State, oneLine(p.Text)); err != nil {
			return err
		}
	}
	return nil
}

// orDash shows what is not there.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
