package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"sync"

	"github.com/mpool-go/mpool/api"
)

// restoreWorkers is how many files are restored at once.
const restoreWorkers = 16

// runRestore restores the files of a manifest below a directory.
func (o *mblockGetOptions) runRestore(ctx context.Context, a *app, pool string, ids []string) error {
	if len(ids) > 0 || o.offset != 0 || !o.toEnd {
		return usagef("--manifest restores whole files: no ID, --offset or --length with it")
	}
	if o.output == "-" {
		return usagef("--manifest needs -o DIR")
	}
	entries, err := o.readManifest(ctx, a)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.output, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(o.output)
	if err != nil {
		return err
	}
	r := &restorer{root: root, dirs: make(map[string]bool)}
	for _, e := range entries {
		r.bytes += e.length
	}
	err = a.withPool(ctx, pool, func(p api.Pool) error {
		r.pool, r.bar = p, a.newProgress("restoring", r.bytes)
		defer r.bar.end()
		return r.run(ctx, entries)
	})
	if err := errors.Join(err, root.Close()); err != nil {
		return err
	}
	return a.print(restored{Files: len(entries), Bytes: r.bytes})
}

func (o *mblockGetOptions) readManifest(ctx context.Context, a *app) ([]manifestEntry, error) {
	if o.manifest == "-" {
		entries, err := readManifest(interruptible(ctx, a.stdin))
		return entries, o.badManifest(err)
	}
	f, err := os.Open(o.manifest)
	if err != nil {
		return nil, err
	}
	entries, err := readManifest(f)
	return entries, errors.Join(o.badManifest(err), f.Close())
}

// badManifest is the error of a manifest that cannot be read as one.
func (o *mblockGetOptions) badManifest(err error) error {
	if err == nil {
		return nil
	}
	return api.Errorf(api.EINVAL, "", "%s: %v", o.manifest, err)
}

// restorer writes files below a directory, which it never leaves.
type restorer struct {
	pool  api.Pool
	root  *os.Root
	bar   progress
	bytes int64

	mu sync.Mutex
	// +checklocks:mu
	dirs map[string]bool // made already
}

// run restores all files, several at once, and returns the first error.
func (r *restorer) run(ctx context.Context, entries []manifestEntry) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	jobs := make(chan int)
	var workers sync.WaitGroup
	for range min(restoreWorkers, len(entries)) {
		workers.Go(func() {
			buf := make([]byte, getBuffer)
			for i := range jobs {
				if err := r.restore(ctx, entries[i], buf); err != nil {
					fail(wrapPath(entries[i].path, err))
				}
			}
		})
	}
	feed(ctx, jobs, len(entries))
	workers.Wait()
	return context.Cause(ctx)
}

// restore writes one file. One that cannot be restored whole is removed.
func (r *restorer) restore(ctx context.Context, e manifestEntry, buf []byte) error {
	if err := r.makeDir(path.Dir(e.path)); err != nil {
		return err
	}
	f, err := r.root.OpenFile(e.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = r.fill(ctx, f, e, buf)
	if err == nil {
		err = f.Chmod(e.mode)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, r.root.Remove(e.path))
	}
	return nil
}

// fill copies the mblocks of a file and checks that they make up its length.
func (r *restorer) fill(ctx context.Context, out io.Writer, e manifestEntry, buf []byte) error {
	var total int64
	for _, id := range e.ids {
		m, err := r.pool.Mblock(ctx, id)
		if err != nil {
			return err
		}
		s := &steady{pool: r.pool, m: m}
		n, err := r.copyAll(ctx, out, s, buf)
		if err := errors.Join(err, s.close()); err != nil {
			return err
		}
		total += n
	}
	if total != e.length {
		return api.Errorf(api.ECORRUPT, "", "its mblocks hold %d bytes, the manifest says %d", total, e.length)
	}
	return nil
}

// copyAll copies an mblock to its end, which it finds by reading: for small
// files that is one request less than asking for the length first.
func (r *restorer) copyAll(ctx context.Context, out io.Writer, m *steady, buf []byte) (int64, error) {
	for off := int64(0); ; {
		n, err := m.readAt(ctx, buf, off)
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended {
			return off, err
		}
		if _, err := out.Write(buf[:n]); err != nil {
			return off, err
		}
		off += int64(n)
		r.bar.add(int64(n))
		if ended || n < len(buf) {
			return off, nil
		}
	}
}

// makeDir makes a directory and its parents, once.
func (r *restorer) makeDir(dir string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dirs[dir] {
		return nil
	}
	r.dirs[dir] = true
	return r.root.MkdirAll(dir, 0o755)
}

// restored is the result of a restore.
type restored struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

func (v restored) show(w io.Writer, quiet bool) error {
	if quiet {
		return nil
	}
	return writeFields(w, "files", strconv.Itoa(v.Files), "bytes", showBytes(v.Bytes))
}
