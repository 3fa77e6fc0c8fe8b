package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/test/bench/measure"
)

// sample returns a run's figures: one line beside an anchor, one without what
// was to be its anchor.
func sample() *report {
	b := &bench{log: new(tail)}
	runs := func(rates ...int64) *series {
		s := &series{Name: "fio"}
		for _, r := range rates {
			s.Runs = append(s.Runs, &measure.Result{Ops: r, Seconds: 1, CPUUS: float64(2 * r), P50US: 50, P99US: 99, P999US: 999})
		}
		return s
	}
	ours := runs(80, 90, 100)
	ours.Daemon = true
	for _, r := range ours.Runs {
		r.DaemonUS, r.Zone = r.CPUUS, 64<<10
	}
	b.report("disk, read", opsPerSecond, ours, runs(100, 100, 100), ratioAtLeast, 0.85, 0.95)
	b.report("disk, read: CPU", cpuPerOp, ours, runs(100, 100, 100), aboveAtMost, 1, 0)
	b.report("disk, a|b", opsPerSecond, ours, &series{Name: "XFS", Missing: "no mkfs"}, ratioAtLeast, 1, 0)
	for _, l := range b.lines {
		l.Row = "client-read"
	}
	return &report{Machine: "2 cores", Command: "./scripts/bench.sh", Lines: b.lines}
}

// What a table says is what was measured, also after it was written to a file and
// read again; an anchor that there was not is named, and judged by nothing.
func TestTables(t *testing.T) {
	file := filepath.Join(t.TempDir(), "figures.json")
	if err := sample().write(file); err != nil {
		t.Fatal(err)
	}
	r, err := readReport(file)
	if err != nil {
		t.Fatal(err)
	}
	if v := []string{r.Lines[0].Verdict, r.Lines[1].Verdict, r.Lines[2].Verdict}; strings.Join(v, ",") != "ok,MISSED," {
		t.Errorf("verdicts %q", v)
	}
	got := r.markdown()
	if len(got) != 2 || got[0].row != "machine" || got[1].row != "client-read" {
		t.Fatalf("%+v", got)
	}
	for _, want := range []string{
		"| disk, read (daemon, zones of 64K) | 90.0 op/s | fio 100 | 0.90 [0.80-1.00] | >=0.85 | >=0.95 | ok | 4.00 (2.00 + 2.00) : 2.00 | 50.0/99.0/999 | 50.0/99.0/999 |\n",
		"| disk, read: CPU (daemon, zones of 64K) | 4.00 µs CPU/op | fio 2.00 | +2.00 [2.00-2.00] | <=+1.00 | - | MISSED |",
		`| disk, a\|b (daemon, zones of 64K) | 90.0 op/s | no XFS: no mkfs | - | >=1.00 | - | - | 4.00 (2.00 + 2.00) |`,
	} {
		if !strings.Contains(got[1].text, want) {
			t.Errorf("no %q in\n%s", want, got[1].text)
		}
	}
}

// Tables go where the page has their marks, and nothing else of it changes.
func TestTablesInPage(t *testing.T) {
	dir := t.TempDir()
	file, page := filepath.Join(dir, "figures.json"), filepath.Join(dir, "page.md")
	if err := sample().write(file); err != nil {
		t.Fatal(err)
	}
	text := "# Title\n<!-- figures machine -->\nold\n<!-- end -->\nbetween\n<!-- figures client-read -->\n<!-- end -->\n" +
		"<!-- figures idle -->\nkept\n<!-- end -->\nlast\n"
	if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := tables([]string{file, page}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		got := string(b)
		for _, want := range []string{"# Title\n<!-- figures machine -->\n2 cores\n", "<!-- end -->\nbetween\n", "| disk, read ", "\nkept\n<!-- end -->\nlast\n"} {
			if strings.Count(got, want) != 1 && want != "| disk, read " {
				t.Errorf("not one %q in\n%s", want, got)
			}
		}
		if strings.Contains(got, "old") {
			t.Errorf("old figures in\n%s", got)
		}
	}
	if err := os.WriteFile(page, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tables([]string{file, page}); err == nil {
		t.Error("figures without a place were dropped")
	}
}

// Every row and every task of a row's processes has a name of its own.
func TestRows(t *testing.T) {
	names := map[string]bool{}
	for _, r := range rows() {
		if names[r.name] || r.run == nil {
			t.Errorf("row %q", r.name)
		}
		names[r.name] = true
	}
	if _, err := choose([]string{"client-read", "idle"}); err != nil {
		t.Error(err)
	}
	if _, err := choose([]string{"nonsense"}); err == nil {
		t.Error("a row that there is not was chosen")
	}
}
