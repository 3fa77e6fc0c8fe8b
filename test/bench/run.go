package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// bench is one run of rows.
type bench struct {
	fast, fast2, disk, sparse string // devices; "" where a row does not need one
	ext4, xfs                 string // mount points
	anchors                   string // the program with the anchors that are libraries
	mpoold                    string // the daemon's program
	profile                   string // folder for profiles of the engine's processes, or ""
	quick                     bool
	large                     bool          // also what takes very long
	hugePages                 bool          // the system has some reserved for the anchors
	noFio, noAnchors          string        // why there is none; "": there is
	noExt4, noXFS             string        // the same
	turns                     int           // alternations
	time                      time.Duration // of a run that is limited by time

	patience time.Duration // how long a turn waits until others are quiet

	log       io.Writer // progress
	lines     []*line
	disturbed []float64 // cores that others used, by turn of the row
}

// row is a row of the table in docs/performance.md.
type row struct {
	name string
	run  func(b *bench, ctx context.Context) error
}

// rows returns the rows in the order they are run.
func rows() []row {
	return []row{
		{"engine-read", (*bench).engineRead},
		{"mblock-durable", (*bench).mblockDurable},
		{"commit-rate", (*bench).commitRate},
		{"mlog-sync", (*bench).mlogSync},
		{"client-read", (*bench).clientRead},
		{"client-read-qd1", (*bench).clientReadOne},
		{"client-seq", (*bench).clientSeq},
		{"mlog-client", (*bench).mlogClient},
		{"reclaim", (*bench).reclaim},
		{"reclaim-storm", (*bench).reclaimStorm},
		{"idle", (*bench).idle},
		{"churn", (*bench).churn},
		{"activate", (*bench).activate},
		{"memory", (*bench).memory},
		{"scope", (*bench).scope},
		{"quota", (*bench).quota},
		{"credit", (*bench).credit},
		{"credit-data", (*bench).creditData},
	}
}

// run runs the rows named in args, or all.
func run(ctx context.Context, args []string) error {
	b := &bench{log: os.Stderr}
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	f.StringVar(&b.fast, "fast", "", "device over memory")
	f.StringVar(&b.fast2, "fast2", "", "another one")
	f.StringVar(&b.disk, "disk", "", "device over the disk")
	f.StringVar(&b.sparse, "sparse", "", "large device over a sparse file")
	f.StringVar(&b.ext4, "ext4", "", "folder on ext4 over a device like disk")
	f.StringVar(&b.xfs, "xfs", "", "folder on XFS over a device like disk")
	f.StringVar(&b.anchors, "anchors", "", "program with the anchors that are libraries")
	f.StringVar(&b.mpoold, "mpoold", "", "the daemon's program")
	f.StringVar(&b.noFio, "no-fio", "", "why there is no fio")
	f.StringVar(&b.noAnchors, "no-anchors", "", "why there is no program with the anchors that are libraries")
	f.StringVar(&b.noExt4, "no-ext4", "", "why there is no ext4")
	f.StringVar(&b.noXFS, "no-xfs", "", "why there is no XFS")
	f.BoolVar(&b.large, "large", false, "also what takes very long")
	f.StringVar(&b.profile, "profile", "", "folder to write profiles to")
	f.BoolVar(&b.hugePages, "huge-pages", false, "the system has huge pages reserved")
	f.BoolVar(&b.quick, "quick", false, "short runs, one alternation")
	f.DurationVar(&b.patience, "wait", 0, "how long to wait before each turn until others are quiet")
	turns := f.Int("turns", 0, "alternations; 0: five, or one with -quick")
	command := "bench"
	f.StringVar(&command, "command", command, "the command line to be written beside the figures")
	jsonFile := f.String("json", "", "file to write all figures to")
	if err := f.Parse(args); err != nil {
		return err
	}
	b.turns, b.time = 5, 1500*time.Millisecond
	if b.quick {
		b.turns, b.time = 1, 300*time.Millisecond
	}
	if *turns > 0 {
		b.turns = *turns
	}
	chosen, err := choose(f.Args())
	if err != nil {
		return err
	}
	all := &report{Machine: machine(), Command: command}
	fmt.Println(all.Machine)
	var failed error
	for _, r := range chosen {
		if err := b.runRow(ctx, r); err != nil {
			err = fmt.Errorf("%s: %w", r.name, err)
			if ctx.Err() != nil {
				return err
			}
			fmt.Fprintf(b.log, "  %v\n", err)
			failed = errors.Join(failed, err) // the other rows go on
		}
		// What is measured is kept, whatever becomes of the rest.
		if all.Lines = b.lines; *jsonFile != "" {
			if err := all.write(*jsonFile); err != nil {
				return err
			}
		}
	}
	if err := printTable(os.Stdout, b.lines); err != nil {
		return err
	}
	fmt.Printf("load at the end: %s\n", loadavg())
	return failed
}

// runRow runs one row.
func (b *bench) runRow(ctx context.Context, r row) error {
	from, at := len(b.lines), time.Now()
	b.disturbed = nil
	fmt.Fprintf(b.log, "%s (load %s)\n", r.name, loadavg())
	err := r.run(b, ctx)
	took := time.Since(at).Seconds()
	for _, l := range b.lines[from:] {
		l.Row, l.Seconds, l.Others = r.name, took, spreadOf(b.disturbed)
	}
	fmt.Fprintf(b.log, "  %.0f s; others used %s\n", took, disturbance(b.disturbed))
	return err
}

func choose(names []string) ([]row, error) {
	all := rows()
	if len(names) == 0 {
		return all, nil
	}
	var chosen []row
	for _, n := range names {
		i := slices.IndexFunc(all, func(r row) bool { return r.name == n })
		if i < 0 {
			return nil, fmt.Errorf("no row %q", n)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// machine describes the machine in one line.
func machine() string {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			return "?"
		}
		return strings.TrimSpace(string(b))
	}
	model, cpus := "?", 0
	for l := range strings.Lines(read("/proc/cpuinfo")) {
		if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == "model name" {
			model = strings.TrimSpace(v)
			cpus++
		}
	}
	return fmt.Sprintf("%s; %d x %s; Linux %s; load %s", time.Now().UTC().Format("2006-01-02 15:04 MST"),
		cpus, model, read("/proc/sys/kernel/osrelease"), loadavg())
}

func loadavg() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	f := strings.Fields(string(b))
	return strings.Join(f[:min(3, len(f))], " ")
}
