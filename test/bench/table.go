package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// printTable prints the lines as a table.
func printTable(w io.Writer, lines []*line) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join([]string{
		"ROW", "CASE", "WHERE", "ZONE", "UNIT", "OURS [MIN-MAX]", "ANCHOR", "ITS [MIN-MAX]", "RATIO/DIFF [MIN-MAX]", "MUST", "AIM", "VERDICT",
		"CPU µs/op", "p50/p99/p99.9 µs", "ANCHOR'S", "OTHERS' CORES", "NOTE",
	}, "\t"))
	for _, l := range lines {
		fmt.Fprintln(t, strings.Join([]string{
			l.Row, l.Case, l.Where, zone(l.Zone), l.Unit, l.Mine.Value.String(), orDash(l.Anchor.Name), l.its(), l.compared(),
			l.How.limit(l.Must), l.How.limit(l.Aim), orDash(l.Verdict), l.cpu(), latencies(&l.Mine), latencies(&l.Anchor),
			l.Others.String(), l.Note,
		}, "\t"))
	}
	return t.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func zone(bytes int64) string {
	switch {
	case bytes == 0:
		return "-"
	case bytes < 1<<20:
		return fmt.Sprintf("%dK", bytes>>10)
	default:
		return fmt.Sprintf("%dM", bytes>>20)
	}
}

// its is the anchor's figure.
func (l *line) its() string {
	if l.Anchor.Name == "" {
		return "-"
	}
	return l.Anchor.Value.String()
}

// compared is the ratio or difference.
func (l *line) compared() string {
	if l.How != valueAtMost && l.Anchor.Name == "" {
		return "-"
	}
	if l.How == aboveAtMost && l.Compared.Median >= 0 {
		return "+" + l.Compared.String()
	}
	return l.Compared.String()
}

// cpu is the processor time per operation: the client's and the daemon's, or the
// one process's, then the anchor's.
func (l *line) cpu() string {
	if !l.Mine.HasCPU {
		return "-"
	}
	s := number(l.Mine.CPU.Median)
	if d := l.Mine.DaemonCPU.Median; d > 0 {
		s += fmt.Sprintf(" (%s + %s)", number(l.Mine.CPU.Median-d), number(d))
	}
	if l.Anchor.HasCPU {
		s += " : " + number(l.Anchor.CPU.Median)
	}
	return s
}

func latencies(f *figure) string {
	if !f.HasLatent {
		return "-"
	}
	return number(f.P50) + "/" + number(f.P99) + "/" + number(f.P999)
}

// report is a run's figures as they are written to a file.
type report struct {
	Machine string
	Command string
	Lines   []*line
}

func (r *report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("encode figures: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	return nil
}

func readReport(path string) (*report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read figures: %w", err)
	}
	r := new(report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read figures: %s: %w", path, err)
	}
	return r, nil
}

// tables writes the tables of a run's figures: to standard output or, when there
// is a page, into it, each between the lines that say where it goes:
//
//	<!-- figures ROW -->
//	<!-- end -->
//
// ROW "machine" is the machine and the command. Rows of the page that were not
// run stay as they are; one that was run and has no place in the page is an
// error.
func tables(args []string) error {
	if len(args) != 1 && len(args) != 2 {
		return errors.New("usage: bench tables FIGURES.json [PAGE.md]")
	}
	r, err := readReport(args[0])
	if err != nil {
		return err
	}
	text := r.markdown()
	if len(args) == 1 {
		for _, t := range text {
			fmt.Printf("%s\n%s\n", begin(t.row), t.text)
		}
		return nil
	}
	page, err := os.ReadFile(args[1])
	if err != nil {
		return fmt.Errorf("read page: %w", err)
	}
	for _, t := range text {
		if page, err = insert(page, t); err != nil {
			return fmt.Errorf("%s: %w", args[1], err)
		}
	}
	if err := os.WriteFile(args[1], page, 0o644); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

// rowTable is one row's table in Markdown.
type rowTable struct{ row, text string }

func begin(row string) string { return "<!-- figures " + row + " -->\n" }

const end = "<!-- end -->"

// insert puts a table into its place in the page.
func insert(page []byte, t rowTable) ([]byte, error) {
	before, rest, ok := strings.Cut(string(page), begin(t.row))
	if !ok {
		return nil, fmt.Errorf("no line %q", strings.TrimSpace(begin(t.row)))
	}
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		return nil, fmt.Errorf("no %q after the figures of %s", end, t.row)
	}
	return []byte(before + begin(t.row) + t.text + end + after), nil
}

// markdown returns the tables of all rows that were run, in their order.
func (r *report) markdown() []rowTable {
	all := []rowTable{{"machine", fmt.Sprintf("%s\n\n`%s`\n", r.Machine, r.Command)}}
	for _, l := range r.Lines {
		last := &all[len(all)-1]
		if last.row != l.Row {
			all = append(all, rowTable{row: l.Row, text: fmt.Sprintf(
				"Took %.0f s; others used %s cores meanwhile.\n\n"+
					"| case | ours | anchor | ratio or difference | must | aim | | CPU µs/op: ours : anchor | p50/p99/p99.9 µs: ours | anchor |\n"+
					"|---|---|---|---|---|---|---|---|---|---|\n", l.Seconds, l.Others.String())})
			last = &all[len(all)-1]
		}
		last.text += l.markdown()
	}
	return all
}

// markdown returns the line as a row of its table.
func (l *line) markdown() string {
	its := l.Note
	where := l.Where
	if l.Zone > 0 {
		where += ", zones of " + zone(l.Zone)
	}
	if l.Anchor.Name != "" {
		its = l.Anchor.Name + " " + number(l.Anchor.Value.Median)
		if l.Note != "" {
			where += "; " + l.Note
		}
	}
	compared := l.compared()
	if l.How == valueAtMost {
		compared = spreadOnly(l.Compared)
	}
	cells := []string{
		l.Case + " (" + where + ")", number(l.Mine.Value.Median) + " " + l.Unit, orDash(its), compared,
		l.How.limit(l.Must), l.How.limit(l.Aim), orDash(l.Verdict), l.cpu(), latencies(&l.Mine), latencies(&l.Anchor),
	}
	for i := range cells {
		cells[i] = strings.ReplaceAll(cells[i], "|", "\\|")
	}
	return "| " + strings.Join(cells, " | ") + " |\n"
}

func spreadOnly(s spread) string { return "[" + number(s.Min) + "-" + number(s.Max) + "]" }
