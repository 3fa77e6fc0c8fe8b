package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mpool-go/mpool/api"
)

type poolCreateOptions struct {
	classes    classSwitches
	zone       sizeValue
	uid, gid   idValue
	mode       modeValue
	label      string
	force      bool
	dryRun     bool
	noActivate bool
}

func newPoolCreate(a *app) *cobra.Command {
	o := poolCreateOptions{uid: idValue{lookup: lookupUser}, gid: idValue{lookup: lookupGroup}}
	c := &cobra.Command{
		Use:   "create NAME DEV...",
		Short: "Make a pool on blank devices and activate it",
		Long: `Make a pool on blank block devices or regular files and activate it.

A pool has up to 64 drives. --class applies to the devices after it, so that one
command can name drives of both classes; capacity is the class of those before any
--class. The pool's metadata is on its first drive of the class capacity.`,
		Example: `  mpoolctl pool create data /dev/nvme1n1 --dry-run
  mpoolctl pool create data /dev/sdb /dev/sdc --class staging /dev/nvme0n1
  truncate -s 1G drive.img && mpoolctl pool create data drive.img`,
		Args: cobra.MinimumNArgs(2),
		RunE: a.verb(func(ctx context.Context, args []string) error { return o.run(ctx, a, args) }),
	}
	f := c.Flags()
	o.classes.flags = f
	f.Var(&o.classes, "class", "media class of the devices after it: capacity or staging")
	f.Var(&o.zone, "zone", "zone size, a power of two from 64 KiB to 64 MiB (default by the pool's size)")
	f.Var(&o.uid, "uid", "owning user, a number or a name")
	f.Var(&o.gid, "gid", "owning group, a number or a name")
	f.Var(&o.mode, "mode", "permission bits, octal (default 0660)")
	f.StringVar(&o.label, "label", "", "free text of up to 63 bytes")
	f.BoolVar(&o.force, "force", false, "take devices that carry another signature")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what the pool would have")
	f.BoolVar(&o.noActivate, "no-activate", false, "leave the new pool inactive")
	return c
}

func (o *poolCreateOptions) run(ctx context.Context, a *app, args []string) error {
	capacity, staging := o.classes.split(args[1:], 1)
	if len(capacity) == 0 {
		return usagef("no device of class capacity, which a pool needs: --class applies to the devices after it")
	}
	create := api.CreateOptions{
		ZoneSize: int64(o.zone), Staging: absolutePaths(staging), Label: o.label,
		UID: o.uid.id, GID: o.gid.id, Mode: o.mode.mode,
		Force: o.force, DryRun: o.dryRun, NoActivate: o.noActivate,
	}
	return a.withDaemon(ctx, func(d daemon) error {
		r, err := d.CreatePool(ctx, args[0], absolutePaths(capacity), create)
		if err != nil {
			return err
		}
		v := poolCreated{
			Name: r.Name, UUID: r.UUID, ZoneSize: r.ZoneSize, OverheadBytes: r.OverheadBytes,
			UsableBytes: r.UsableBytes, DryRun: o.dryRun, Drives: newDriveViews(r.Drives),
		}
		return a.print(v)
	})
}

// poolCreated is the result of creating a pool.
type poolCreated struct {
	Name          string      `json:"name"`
	UUID          string      `json:"uuid"`
	ZoneSize      int64       `json:"zone_size"`
	Drives        []driveView `json:"drives"`
	OverheadBytes int64       `json:"overhead_bytes"`
	UsableBytes   int64       `json:"usable_bytes"`
	DryRun        bool        `json:"dry_run,omitempty"`
}

func (v poolCreated) show(w io.Writer, quiet bool) error {
	if quiet {
		return writeLines(w, v.Name)
	}
	err := writeFields(w,
		"name", v.Name, "uuid", v.UUID, "zone size", formatSize(v.ZoneSize),
		"overhead", showBytes(v.OverheadBytes), "usable", showBytes(v.UsableBytes))
	if err != nil {
		return err
	}
	rows := make([][]string, 0, len(v.Drives))
	for _, d := range v.Drives {
		rows = append(rows, []string{d.Path, d.Class, formatSize(d.SizeBytes), formatSize(d.FreeBytes)})
	}
	if err := writeLines(w, ""); err != nil {
		return err
	}
	return writeTable(w, []string{"DRIVE", "CLASS", "SIZE", "FREE"}, rows)
}

// classSwitches is the --class flag of verbs that take devices: it applies to
// the arguments after it. The parser hands arguments and flags over in their
// order, so a switch is the count of arguments before it.
type classSwitches struct {
	flags *pflag.FlagSet
	at    []classSwitch
}

type classSwitch struct {
	args  int
	class api.Class
}

func (s *classSwitches) String() string { return api.ClassCapacity.String() }

func (s *classSwitches) Set(text string) error {
	c, err := parseClass(text)
	if err != nil {
		return err
	}
	s.at = append(s.at, classSwitch{args: s.flags.NArg(), class: c})
	return nil
}

func (s *classSwitches) Type() string { return "CLASS" }

// split gives the devices of each class. before is the number of arguments that
// stand before the first device.
func (s *classSwitches) split(devices []string, before int) (capacity, staging []string) {
	class, next := api.ClassCapacity, 0
	for i, d := range devices {
		for next < len(s.at) && s.at[next].args <= i+before {
			class = s.at[next].class
			next++
		}
		if class == api.ClassStaging {
			staging = append(staging, d)
		} else {
			capacity = append(capacity, d)
		}
	}
	return capacity, staging
}
