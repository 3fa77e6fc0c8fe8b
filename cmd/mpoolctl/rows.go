package main

import (
	"bufio"
	"encoding/json"
	"fmt"
)

// rowWriter writes a list whose length is not known before: with --json one
// object per line, else rows of columns of fixed width under a heading.
type rowWriter struct {
	a       *app
	buf     *bufio.Writer
	json    *json.Encoder
	format  string // of a row
	heading []any
	begun   bool
}

func newRowWriter(a *app, format string, heading ...any) *rowWriter {
	b := bufio.NewWriter(a.stdout)
	w := &rowWriter{a: a, buf: b, json: json.NewEncoder(b), format: format + "\n", heading: heading}
	w.json.SetEscapeHTML(false)
	return w
}

// write writes one element: v is its JSON, name what --quiet shows, which is
// also the first cell; cells are the others.
func (w *rowWriter) write(v any, name string, cells ...any) error {
	switch {
	case w.a.json:
		return w.json.Encode(v)
	case w.a.quiet:
		return writeLines(w.buf, name)
	}
	if !w.begun {
		w.begun = true
		if _, err := fmt.Fprintf(w.buf, w.format, w.heading...); err != nil {
			return err
		}
	}
	row := append([]any{name}, cells...)
	for i, c := range row {
		if s, ok := c.(string); ok {
			row[i] = cell(s)
		}
	}
	_, err := fmt.Fprintf(w.buf, w.format, row...)
	return err
}

func (w *rowWriter) flush() error { return w.buf.Flush() }
