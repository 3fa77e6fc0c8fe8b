package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/test/daemon"
)

// TestMain lets the test binary stand in for the program where it starts itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "work" {
		main()
		return
	}
	os.Exit(m.Run())
}

// newBenchWithDaemon returns a bench with a daemon to start, and a drive.
func newBenchWithDaemon(t *testing.T) (b *bench, drive string) {
	t.Helper()
	mpoold, err := daemon.Build(t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(".", "drive") // on the disk: a temporary folder may have no direct I/O
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	drive = filepath.Join(dir, "drive")
	if err := errors.Join(os.WriteFile(drive, nil, 0o600), os.Truncate(drive, 512<<20)); err != nil {
		t.Fatal(err)
	}
	return &bench{log: new(tail), mpoold: mpoold, turns: 1}, drive
}

// Every task of a client works against the real daemon: it does what it is to
// do, both processes' time is known, and so is the pool's zone size.
func TestClients(t *testing.T) {
	b, drive := newBenchWithDaemon(t)
	drive, err := filepath.Abs(drive)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.work(t.Context(), "read-fill", "-dev", drive, "-size", fmt.Sprint(2*mblockSize)); err != nil {
		t.Fatal(err)
	}
	const whole = 2 * seqWhole
	for _, c := range []struct {
		args []string
		ops  int64 // that it does, or at least one
	}{
		{[]string{"client-read", "-time", "50ms", "-flight", "4", "-blocking"}, 0},
		{[]string{"client-read", "-time", "50ms", "-flight", "4"}, 0},
		{[]string{"client-read", "-time", "50ms", "-flight", "4", "-blocking", "-credits", "1048576"}, 0},
		{[]string{"client-idle", "-time", "50ms", "-flight", "3"}, -1},
		{[]string{"client-credit", "-time", "50ms", "-flight", "4", "-kind", creditGiven}, 0},
		{[]string{"client-write", "-size", fmt.Sprint(whole), "-flight", "4", "-kind", "borrowed"}, whole / seqSize},
		{[]string{"client-scan", "-size", fmt.Sprint(whole), "-flight", "4", "-kind", "borrowed"}, whole / seqSize},
		{[]string{"client-write", "-size", fmt.Sprint(whole), "-flight", "2", "-kind", "own"}, whole / seqSize},
		{[]string{"client-scan", "-size", fmt.Sprint(whole), "-flight", "2", "-kind", "own"}, whole / seqSize},
		{[]string{"client-durable", "-ops", "3", "-flight", "2"}, 3},
		{[]string{"client-commit", "-ops", "20", "-flight", "4"}, 20},
		{[]string{"client-commit", "-ops", "20", "-flight", "4", "-kind", "limited"}, 20},
		{[]string{"client-mlog", "-time", "50ms", "-size", "128", "-flight", "4"}, 0},
		{[]string{"client-logs", "-time", "50ms", "-size", "128", "-flight", "2"}, 0},
		{[]string{"client-reclaim", "-objects", "200", "-size", "65536", "-ops", "3"}, 3},
		{[]string{"client-reclaim", "-objects", "200", "-kind", "child", "-ops", "2"}, 2},
		{[]string{"client-storm", "-objects", "100", "-flight", "5"}, 5},
	} {
		r, err := b.client("", c.args[0], append(c.args[1:], "-dev", drive)...).run(t.Context(), 0)
		if err != nil {
			t.Fatalf("%v: %v", c.args, err)
		}
		if c.ops >= 0 && (r.Ops == 0 || c.ops > 0 && r.Ops != c.ops || r.P50US <= 0 || r.CPUUS <= 0 || r.DaemonUS <= 0) || r.Zone != 64<<10 {
			t.Errorf("%v: %+v", c.args, r)
		}
	}
	for _, kind := range []string{floorSocket, floorFutex} {
		r, err := b.work(t.Context(), "floor", "-time", "50ms", "-kind", kind)
		if err != nil || r.Ops == 0 || r.P50US <= 0 || r.DaemonUS <= 0 {
			t.Errorf("an answer by %s: %+v, %v", kind, r, err)
		}
	}
	clientFails(t, b, drive)
	rowsWithoutAnchors(t, b, drive)
	r, err := b.work(t.Context(), "logs", "-dev", drive, "-time", "50ms", "-size", "128", "-flight", "2")
	if err != nil || r.Ops == 0 {
		t.Errorf("logs: %+v, %v", r, err)
	}
}

// rowsWithoutAnchors: a row goes on without the anchors that cannot be had, and
// says which those are.
func rowsWithoutAnchors(t *testing.T, b *bench, drive string) {
	t.Helper()
	const why = "not in a test"
	b.quick, b.time, b.disk = true, 50*time.Millisecond, drive
	b.noFio, b.noAnchors, b.noExt4, b.noXFS = why, why, why, why
	chosen, err := choose([]string{"mlog-sync"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range chosen {
		if err := b.runRow(t.Context(), r); err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
	}
	for _, l := range b.lines {
		if l.Row == "" || l.Verdict != "" || !strings.Contains(l.Note, why) || l.Mine.Value.Median <= 0 {
			t.Errorf("%+v", l)
		}
	}
	if len(b.lines) < 8 {
		t.Errorf("%d lines", len(b.lines))
	}
}

// clientFails: a side that fails says what its process said, a context that ends
// ends it, and neither leaves anything of a daemon.
func clientFails(t *testing.T, b *bench, drive string) {
	t.Helper()
	left := t.TempDir()
	t.Setenv("TMPDIR", left)
	if _, err := b.client("", "client-read", "-dev", drive+".missing").run(t.Context(), 0); err == nil || !strings.Contains(err.Error(), ".missing") {
		t.Errorf("reads of nothing: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.client("", "client-read", "-dev", drive).run(ended, 0); err == nil {
		t.Error("a run began whose context had ended")
	}
	if list, err := os.ReadDir(left); err != nil || len(list) > 0 {
		t.Errorf("%v stays, %v", list, err)
	}
}
