package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mpool-go/mpool/layout"
)

// A manifest says which mblocks hold which file. It is text in UTF-8:
//
//	mpool-manifest 1
//	"bin/tool" 0755 7340032 0100000000000a01
//	"lib/a \"b\".txt" 0644 11 0100000000000a02
//	"big.img" 0600 3221225472 0100000000000a03,0100000000000a04,0100000000000a05
//
// The first line is the format's name and version. Every other line is a file:
// its path in a Go string literal (so that any name survives), permission bits
// in octal, length in bytes, and the ids of the mblocks whose data make it up,
// in order, separated by commas. Fields are separated by one space. Paths are
// relative, use / and have no .. in them. Empty lines and lines that begin with
// # are ignored, so that lines may be taken out by hand or with grep.

// manifestHeader is a manifest's first line.
const manifestHeader = "mpool-manifest 1"

// maxManifestLine bounds a line when reading: a path of 4096 bytes, each of
// them escaped, and the ids of a file of 64 TiB in mblocks of 1 GiB.
const maxManifestLine = 2 << 20

// manifestEntry is one file of a manifest.
type manifestEntry struct {
	path   string
	mode   fs.FileMode // permission bits
	length int64       // bytes
	ids    []layout.ObjectID
}

// appendLine appends the entry's line to b.
func (e manifestEntry) appendLine(b []byte) []byte {
	b = strconv.AppendQuote(b, e.path)
	b = fmt.Appendf(b, " %04o %d ", e.mode.Perm(), e.length)
	for i, id := range e.ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, id.String()...)
	}
	return append(b, '\n')
}

// parseManifestLine reads one line without its end.
func parseManifestLine(line string) (manifestEntry, error) {
	quoted, err := strconv.QuotedPrefix(line)
	if err != nil {
		return manifestEntry{}, fmt.Errorf("want a path in quotes first")
	}
	path, err := strconv.Unquote(quoted)
	if err != nil {
		return manifestEntry{}, err
	}
	if path == "." || !filepath.IsLocal(path) {
		return manifestEntry{}, fmt.Errorf("path %q leaves the directory", path)
	}
	fields := strings.Split(strings.TrimPrefix(line[len(quoted):], " "), " ")
	if len(fields) != 3 {
		return manifestEntry{}, fmt.Errorf("want mode, length and ids after the path")
	}
	mode, err := parseMode(fields[0])
	if err != nil {
		return manifestEntry{}, err
	}
	length, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil || length < 0 {
		return manifestEntry{}, fmt.Errorf("length %q: want a number of bytes", fields[1])
	}
	e := manifestEntry{path: path, mode: fs.FileMode(mode), length: length}
	for s := range strings.SplitSeq(fields[2], ",") {
		id, err := layout.ParseObjectID(s)
		if err != nil {
			return manifestEntry{}, err
		}
		if !id.Valid() || id.Kind() != layout.KindMblock {
			return manifestEntry{}, fmt.Errorf("id %q is no mblock's", s)
		}
		e.ids = append(e.ids, id)
	}
	return e, nil
}

// readManifest reads a whole manifest.
func readManifest(r io.Reader) ([]manifestEntry, error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxManifestLine)
	if !s.Scan() || s.Text() != manifestHeader {
		if err := s.Err(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("not a manifest: the first line must be %q", manifestHeader)
	}
	var entries []manifestEntry
	seen := make(map[string]bool)
	for n := 2; s.Scan(); n++ {
		line := s.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		e, err := parseManifestLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if seen[e.path] {
			return nil, fmt.Errorf("line %d: %q is there twice", n, e.path)
		}
		seen[e.path] = true
		entries = append(entries, e)
	}
	return entries, s.Err()
}

// writeManifest writes a whole manifest.
func writeManifest(w io.Writer, entries []manifestEntry) error {
	b := append([]byte(manifestHeader), '\n')
	for _, e := range entries {
		b = e.appendLine(b)
		if len(b) < 64<<10 {
			continue
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		b = b[:0]
	}
	_, err := w.Write(b)
	return err
}
