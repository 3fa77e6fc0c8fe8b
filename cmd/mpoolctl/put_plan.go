package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
)

// putFile is one file that is to be stored.
type putFile struct {
	path   string      // as it is shown
	name   string      // its path in the manifest
	mode   fs.FileMode // permission bits
	length int64       // bytes; streams: unknown, -1
	open   func() (*os.File, error)
	// Instead of open, when only the end tells the length.
	stream func(context.Context) (io.ReadCloser, error)
}

// putPlan is everything a put is to store.
type putPlan struct {
	files []putFile
	bytes int64
	roots []*os.Root // to close
}

func (p *putPlan) close() {
	for _, r := range p.roots {
		// It was only read through.
		_ = r.Close()
	}
}

// planPut looks at the arguments of a put: files, or one directory, or nothing
// or - for standard input. note is told what is skipped.
func planPut(args []string, stdin io.Reader, note func(format string, args ...any)) (*putPlan, error) {
	p := new(putPlan)
	if len(args) == 0 {
		args = []string{"-"}
	}
	for _, arg := range args {
		if err := p.add(arg, len(args), stdin, note); err != nil {
			p.close()
			return nil, err
		}
	}
	for _, f := range p.files {
		p.bytes += max(f.length, 0)
	}
	return p, nil
}

func (p *putPlan) add(arg string, args int, stdin io.Reader, note func(string, ...any)) error {
	if arg == "-" {
		if args > 1 {
			return usagef("- stands alone: standard input cannot be stored beside files")
		}
		p.addStream(arg, func(context.Context) (io.ReadCloser, error) { return io.NopCloser(stdin), nil })
		return nil
	}
	info, err := os.Stat(arg)
	if err != nil {
		return err
	}
	switch {
	case info.IsDir() && args > 1:
		return usagef("%s is a directory: give one directory, or files", arg)
	case info.IsDir():
		return p.addTree(arg, note)
	case info.Mode().IsRegular():
		p.files = append(p.files, putFile{
			path: arg, name: manifestName(arg), mode: info.Mode().Perm(), length: info.Size(),
			open: func() (*os.File, error) { return os.Open(arg) },
		})
	default:
		p.addStream(arg, func(ctx context.Context) (io.ReadCloser, error) { return openStream(ctx, arg) })
	}
	return nil
}

// addStream adds something whose length only its end tells.
func (p *putPlan) addStream(path string, open func(context.Context) (io.ReadCloser, error)) {
	name := manifestName(path)
	if path == "-" {
		name = "stdin"
	}
	p.files = append(p.files, putFile{path: path, name: name, mode: 0o644, length: -1, stream: open})
}

// manifestName is a path as a manifest may have it: the whole path when it
// stays below the working directory, else its last element.
func manifestName(path string) string {
	if name := filepath.Clean(path); filepath.IsLocal(name) {
		return filepath.ToSlash(name)
	}
	return filepath.Base(path)
}

// addTree adds every regular file below a directory. Names are resolved from
// the directory's descriptor and never through a symbolic link, so a tree that
// changes meanwhile cannot lead out of it.
func (p *putPlan) addTree(dir string, note func(string, ...any)) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	p.roots = append(p.roots, root)
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, path), err)
		}
		if d.IsDir() {
			return nil
		}
		if !d.Type().IsRegular() {
			note("skipped %s: %s", filepath.Join(dir, path), typeName(d.Type()))
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		p.files = append(p.files, putFile{
			path: path, name: path, mode: info.Mode().Perm(), length: info.Size(),
			open: func() (*os.File, error) {
				return root.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
			},
		})
		return nil
	})
}

// typeName names what is not stored.
func typeName(t fs.FileMode) string {
	switch {
	case t&fs.ModeSymlink != 0:
		return "a symbolic link"
	case t&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case t&fs.ModeSocket != 0:
		return "a socket"
	case t&fs.ModeDevice != 0:
		return "a device"
	default:
		return "not a regular file"
	}
}

// parts cuts a file into what goes into one mblock each. An empty file is one
// empty part; so is, for now, a stream.
func (f putFile) parts(file int, split int64) ([]putPart, error) {
	if f.length > api.MaxMblockCapacity && split == 0 {
		return nil, usagef("%s has %s, an mblock %s at most: give --split SIZE to store it in several",
			f.path, formatSize(f.length), formatSize(api.MaxMblockCapacity))
	}
	if split == 0 {
		split = api.MaxMblockCapacity
	}
	parts := []putPart{{file: file, length: max(0, min(f.length, split))}}
	for end := parts[0].length; end < f.length; {
		n := min(f.length-end, split)
		parts = append(parts, putPart{file: file, index: len(parts), offset: end, length: n})
		end += n
	}
	return parts, nil
}

// putPart is what goes into one mblock: a piece of a file.
type putPart struct {
	file   int   // index into the plan's files
	index  int   // of the part within the file, from 0
	offset int64 // of the part within the file, bytes
	length int64 // bytes
}
