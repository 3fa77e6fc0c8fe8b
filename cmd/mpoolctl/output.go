package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// view is a verb's result. Its exported fields are the JSON; show writes it for
// people, and names alone when quiet.
type view interface {
	show(w io.Writer, quiet bool) error
}

// print writes a result to stdout.
func (a *app) print(v view) error {
	if a.json {
		return a.printJSON(v)
	}
	return v.show(a.stdout, a.quiet)
}

// printJSON writes one JSON document on one line.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// note says something on stderr that is neither result nor error.
func (a *app) note(format string, args ...any) {
	if a.quiet {
		return
	}
	fmt.Fprintf(a.stderr, "mpoolctl: "+format+"\n", args...)
}

// warn says something on stderr that must not be missed.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.stderr, "mpoolctl: "+format+"\n", args...)
}

// writeTable writes rows of cells in aligned columns under a heading.
func writeTable(w io.Writer, heading []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{heading}, rows...) {
		for i, c := range row {
			if i > 0 {
				c = "\t" + cell(c)
			} else {
				c = cell(c)
			}
			if _, err := io.WriteString(t, c); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintln(t); err != nil {
			return err
		}
	}
	return t.Flush()
}

// cell makes text fit for one cell of a table. Names that others choose (of
// files, roots, processes) may have line ends or control sequences in them:
// those are shown in quotes, escaped.
func cell(s string) string {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}

// writeFields writes names and values, one pair a line.
func writeFields(w io.Writer, pairs ...string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if _, err := fmt.Fprintf(t, "%s\t%s\n", pairs[i], cell(pairs[i+1])); err != nil {
			return err
		}
	}
	return t.Flush()
}

// writeLines writes one string a line.
func writeLines(w io.Writer, lines ...string) error {
	for _, l := range lines {
		if _, err := fmt.Fprintln(w, l); err != nil {
			return err
		}
	}
	return nil
}

// formatTime writes a time as JSON has it: RFC 3339 in UTC.
func formatTime(t time.Time) string {
	return t.UTC().Format(time.RFC3339Nano)
}

// plural writes a count and its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
