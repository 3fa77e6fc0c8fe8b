package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mpool-go/mpool/api"
)

// poolView is a pool as it is shown. The byte counts from free_bytes to
// remainder_bytes add up to total_bytes; used_bytes is what is not free.
type poolView struct {
	Name             string      `json:"name"`
	UUID             string      `json:"uuid"`
	Label            string      `json:"label"`
	State            string      `json:"state"`
	Health           string      `json:"health"`
	ZoneSize         int64       `json:"zone_size"`
	TotalBytes       int64       `json:"total_bytes"`
	UsedBytes        int64       `json:"used_bytes"`
	StoredBytes      int64       `json:"stored_bytes"`
	FreeBytes        int64       `json:"free_bytes"`
	LiveBytes        int64       `json:"live_bytes"`
	UncommittedBytes int64       `json:"uncommitted_bytes"`
	DrainingBytes    int64       `json:"draining_bytes"`
	SpareBytes       int64       `json:"spare_bytes"`
	OverheadBytes    int64       `json:"overhead_bytes"`
	RemainderBytes   int64       `json:"remainder_bytes"`
	Mblocks          int64       `json:"mblocks"`
	Mlogs            int64       `json:"mlogs"`
	UID              uint32      `json:"uid"`
	GID              uint32      `json:"gid"`
	Mode             string      `json:"mode"`
	SparePercent     uint8       `json:"spare_percent"`
	ReadVerify       bool        `json:"read_verify"`
	Shared           bool        `json:"shared"`
	Epoch            uint64      `json:"epoch"`
	Drives           []driveView `json:"drives"`
}

// driveView is a drive as it is shown.
type driveView struct {
	Path       string `json:"path"`
	UUID       string `json:"uuid"`
	Slot       uint16 `json:"slot"`
	Class      string `json:"class"`
	State      string `json:"state"`
	SizeBytes  int64  `json:"size_bytes"`
	FreeBytes  int64  `json:"free_bytes"`
	Engine     string `json:"engine"`
	SectorSize int    `json:"sector_size"`
}

func newDriveViews(drives []api.DriveInfo) []driveView {
	views := make([]driveView, 0, len(drives))
	for _, d := range drives {
		views = append(views, driveView{
			Path: d.Path, UUID: d.UUID, Slot: d.Slot, Class: d.Class.String(), State: d.State,
			SizeBytes: d.Size, FreeBytes: d.Free, Engine: d.Engine, SectorSize: d.SectorSize,
		})
	}
	return views
}

func newPoolView(i api.PoolInfo) poolView {
	s := i.Space
	return poolView{
		Name: i.Name, UUID: i.UUID, Label: i.Label, State: i.State, Health: i.Health, ZoneSize: i.ZoneSize,
		TotalBytes: s.Total, UsedBytes: s.Total - s.Free, StoredBytes: i.Stored,
		FreeBytes: s.Free, LiveBytes: s.Live, UncommittedBytes: s.Uncommitted, DrainingBytes: s.Draining,
		SpareBytes: s.Spare, OverheadBytes: s.Overhead, RemainderBytes: s.Remainder,
		Mblocks: i.Mblocks, Mlogs: i.Mlogs, UID: i.UID, GID: i.GID, Mode: fmt.Sprintf("%04o", i.Mode),
		SparePercent: i.Spare, ReadVerify: i.Verify, Shared: i.Shared, Epoch: i.Epoch, Drives: newDriveViews(i.Drives),
	}
}

func (v poolView) show(w io.Writer, quiet bool) error {
	if quiet {
		return writeLines(w, v.Name)
	}
	err := writeFields(w,
		"name", v.Name, "uuid", v.UUID, "label", v.Label, "state", v.State, "health", v.Health+troubleOf(v.Drives),
		"zone size", formatSize(v.ZoneSize),
		"total", showBytes(v.TotalBytes), "free", showBytes(v.FreeBytes), "used", showBytes(v.UsedBytes),
		"  live", showBytes(v.LiveBytes), "  uncommitted", showBytes(v.UncommittedBytes),
		"  draining", showBytes(v.DrainingBytes), "  spare", showBytes(v.SpareBytes),
		"  overhead", showBytes(v.OverheadBytes), "  remainder", showBytes(v.RemainderBytes),
		"stored", showBytes(v.StoredBytes),
		"mblocks", strconv.FormatInt(v.Mblocks, 10), "mlogs", strconv.FormatInt(v.Mlogs, 10),
		"owner", fmt.Sprintf("uid %d, gid %d, mode %s", v.UID, v.GID, v.Mode),
		"spare percent", strconv.Itoa(int(v.SparePercent)), "reads verify", strconv.FormatBool(v.ReadVerify),
		"shared", strconv.FormatBool(v.Shared),
		"epoch", strconv.FormatUint(v.Epoch, 10))
	if err != nil {
		return err
	}
	return showDrives(w, v.Drives)
}

// showDrives writes the table of a pool's drives below what is said of the pool.
func showDrives(w io.Writer, drives []driveView) error {
	rows := make([][]string, 0, len(drives))
	for _, d := range drives {
		size, free, sector := formatSize(d.SizeBytes), formatSize(d.FreeBytes), strconv.Itoa(d.SectorSize)
		if d.State == "missing" {
			free = "-"
		}
		if d.SectorSize == 0 {
			sector = "-"
		}
		rows = append(rows, []string{
			strconv.Itoa(int(d.Slot)), cmp.Or(d.Path, "-"), d.Class, cmp.Or(d.State, "-"), size, free,
			cmp.Or(d.Engine, "-"), sector, d.UUID,
		})
	}
	if err := writeLines(w, ""); err != nil {
		return err
	}
	return writeTable(w, []string{"SLOT", "DRIVE", "CLASS", "STATE", "SIZE", "FREE", "ENGINE", "SECTOR", "UUID"}, rows)
}

// troubleOf counts the drives that are not online, as " (1 missing, 2 failed)",
// or is "".
func troubleOf(drives []driveView) string {
	var states []string
	count := make(map[string]int)
	for _, d := range drives {
		if d.State == "online" {
			continue
		}
		if count[d.State]++; count[d.State] == 1 {
			states = append(states, d.State)
		}
	}
	if len(states) == 0 {
		return ""
	}
	for i, s := range states {
		states[i] = fmt.Sprintf("%d %s", count[s], s)
	}
	return " (" + strings.Join(states, ", ") + ")"
}

// pastPool is a pool that is no longer active: for people its last numbers are
// of no use.
type pastPool struct{ poolView }

func (v pastPool) show(w io.Writer, quiet bool) error {
	if quiet {
		return writeLines(w, v.Name)
	}
	return writeLines(w, fmt.Sprintf("pool %s (%s) is %s", v.Name, v.UUID, v.State))
}

// poolsView is a list of pools.
type poolsView []poolView

func (v poolsView) show(w io.Writer, quiet bool) error {
	rows := make([][]string, 0, len(v))
	for _, p := range v {
		if quiet {
			if err := p.show(w, true); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{
			p.Name, p.State, p.Health, formatSize(p.TotalBytes), formatSize(p.UsedBytes), formatSize(p.FreeBytes),
			formatSize(p.StoredBytes), strconv.FormatInt(p.Mblocks, 10), strconv.FormatInt(p.Mlogs, 10),
			strconv.Itoa(len(p.Drives)) + troubleOf(p.Drives), p.UUID,
		})
	}
	if quiet {
		return nil
	}
	return writeTable(w, []string{
		"NAME", "STATE", "HEALTH", "TOTAL", "USED", "FREE", "STORED", "MBLOCKS", "MLOGS", "DRIVES", "UUID",
	}, rows)
}

// findPool returns an active pool by name or UUID.
func findPool(ctx context.Context, d daemon, name string) (api.PoolInfo, error) {
	pools, err := d.Pools(ctx)
	if err != nil {
		return api.PoolInfo{}, err
	}
	for _, p := range pools {
		if p.Name == name || strings.EqualFold(p.UUID, name) {
			return p, nil
		}
	}
	return api.PoolInfo{}, api.Errorf(api.ENOENT, "", "there is no active pool %q", name)
}

// absolutePaths makes device paths mean the same to the daemon, whose working
// directory is another.
func absolutePaths(paths []string) []string {
	abs := make([]string, 0, len(paths))
	for _, p := range paths {
		if q, err := filepath.Abs(p); err == nil {
			p = q
		}
		abs = append(abs, p)
	}
	return abs
}
