package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

const (
	// putWorkers is how many files are read and written at once.
	putWorkers = 16
	// putBuffer is how much is read and written at once, in bytes; a multiple
	// of 4096, as every write of an mblock but the last must be.
	putBuffer = 1 << 20
)

// putter stores the files of a plan:
//
//	feed ─ jobs ─▶ putWorkers × (alloc, write) ─ written ─▶ committer ─ committed ─▶ releasers
//
// Whoever holds an uncommitted object when the put fails aborts it. The
// committer takes whatever is there, up to MaxCommitMany, so that one flush
// serves many small files and none waits for company.
type putter struct {
	pool    api.Pool
	plan    *putPlan
	alloc   api.AllocOptions
	split   int64
	partial *partialManifest
	bar     progress

	written chan writtenPart
	release chan api.Object

	// Touched by the committer only, until run returns.
	parts   [][]storedPart    // per file: its committed parts
	missing []int             // per file: parts not committed yet; streams: 1 until their end is known
	made    []layout.ObjectID // every object whose commit was tried
}

// writtenPart is a part that waits for its commit. mblock is nil where the end
// of a stream is told.
type writtenPart struct {
	part   putPart
	mblock api.Mblock
	cap    int64
	more   bool // a stream's next part follows
}

// storedPart is a committed part.
type storedPart struct {
	part putPart
	id   layout.ObjectID
	cap  int64
}

func newPutter(p api.Pool, plan *putPlan, alloc api.AllocOptions, split int64, partial *partialManifest, bar progress) *putter {
	return &putter{
		pool: p, plan: plan, alloc: alloc, split: split, partial: partial, bar: bar,
		written: make(chan writtenPart, api.MaxCommitMany),
		release: make(chan api.Object, api.MaxCommitMany),
		parts:   make([][]storedPart, len(plan.files)),
		missing: make([]int, len(plan.files)),
	}
}

// run stores everything. After an error nothing is left uncommitted, and undo
// deletes what was committed.
func (p *putter) run(ctx context.Context) error {
	parts, err := p.cut()
	if err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	jobs := make(chan int)
	var workers, releasers sync.WaitGroup
	workers.Go(func() { feed(ctx, jobs, len(parts)) })
	for range min(putWorkers, len(parts)) {
		workers.Go(func() {
			buf := make([]byte, putBuffer)
			for i := range jobs {
				if err := p.store(ctx, parts[i], buf); err != nil {
					fail(err)
				}
			}
		})
		releasers.Go(func() {
			for o := range p.release {
				if err := o.Put(); err != nil {
					fail(err)
				}
			}
		})
	}
	var committer sync.WaitGroup
	committer.Go(func() { p.commitAll(ctx, fail) })
	workers.Wait()
	close(p.written)
	committer.Wait()
	close(p.release)
	releasers.Wait()
	return context.Cause(ctx)
}

// cut makes the parts of all files.
func (p *putter) cut() ([]putPart, error) {
	var all []putPart
	for i, f := range p.plan.files {
		parts, err := f.parts(i, p.split)
		if err != nil {
			return nil, err
		}
		p.missing[i] = len(parts)
		all = append(all, parts...)
	}
	return all, nil
}

// commitAll commits what is written, in batches, until written is closed.
func (p *putter) commitAll(ctx context.Context, fail context.CancelCauseFunc) {
	batch := make([]writtenPart, 0, api.MaxCommitMany)
	for first := range p.written {
		batch = append(batch[:0], first)
	fill:
		for len(batch) < api.MaxCommitMany {
			select {
			case w, ok := <-p.written:
				if !ok {
					break fill
				}
				batch = append(batch, w)
			default:
				break fill
			}
		}
		if ctx.Err() != nil {
			p.abortAll(ctx, batch)
			continue
		}
		if err := p.commit(ctx, batch); err != nil {
			fail(err)
		}
	}
}

// commit commits one batch and notes what is complete by it. A commit that has
// begun is not cut off when the put fails: its outcome would be unknown.
func (p *putter) commit(ctx context.Context, batch []writtenPart) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeoutForCleanup)
	defer cancel()
	objects := make([]api.Object, 0, len(batch))
	for _, w := range batch {
		objects = append(objects, w.mblock)
	}
	if err := p.pool.CommitMany(ctx, objects, nil); err != nil {
		if errors.Is(err, api.EUNKNOWN) {
			for _, w := range batch {
				p.made = append(p.made, w.mblock.ID())
			}
		}
		p.abortAll(ctx, batch)
		return err
	}
	var complete []manifestEntry
	for _, w := range batch {
		f := w.part.file
		p.made = append(p.made, w.mblock.ID())
		p.parts[f] = append(p.parts[f], storedPart{part: w.part, id: w.mblock.ID(), cap: w.cap})
		if !w.more {
			p.missing[f]--
		}
		if p.missing[f] == 0 {
			complete = append(complete, p.entry(f))
		}
		p.release <- w.mblock
	}
	return p.partial.add(complete)
}

// abortAll aborts the objects of a batch that will not be committed.
func (p *putter) abortAll(ctx context.Context, batch []writtenPart) {
	for _, w := range batch {
		p.abort(ctx, w.mblock)
	}
}

// abort gives an uncommitted object up, also when the put's context has ended.
// The daemon would do it when this process ends, and what the caller reports is
// why it was given up. One that turns out to be committed, by a commit whose
// outcome was unknown, is left to undo: it needs the reference.
func (p *putter) abort(ctx context.Context, m api.Mblock) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeoutForCleanup)
	defer cancel()
	if err := m.Abort(ctx); err != nil {
		_ = m.Put() //nolint:errcheck // see above
	}
}

// undo deletes what was committed and returns how many mblocks are left, and the
// first reason. It gives up when the daemon cannot be reached.
func (p *putter) undo(ctx context.Context) (left int, why error) {
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	var mu sync.Mutex
	ids := make(chan layout.ObjectID)
	var workers sync.WaitGroup
	for range putWorkers {
		workers.Go(func() {
			for id := range ids {
				err := p.delete(ctx, id)
				if err != nil && !isGone(err) {
					mu.Lock()
					left++
					if why == nil {
						why = err
					}
					mu.Unlock()
				}
				if errors.Is(err, api.ECONNRESET) {
					giveUp()
				}
			}
		})
	}
	for _, id := range p.made {
		ids <- id
	}
	close(ids)
	workers.Wait()
	return left, why
}

// isGone says whether an object does not exist; that its pool is not active is
// something else.
func isGone(err error) bool {
	e, ok := errors.AsType[*api.Error](err)
	return ok && e.Code == api.ENOENT && e.Object != 0
}

// delete deletes a committed object. One whose commit had an unknown outcome may
// be uncommitted, or become committed yet.
func (p *putter) delete(ctx context.Context, id layout.ObjectID) error {
	for {
		m, err := p.pool.Mblock(ctx, id)
		if err != nil {
			return err
		}
		err = m.Delete(ctx)
		if errors.Is(err, api.ESTATE) {
			err = m.Abort(ctx)
		}
		if err == nil {
			return nil
		}
		if err := errors.Join(err, m.Put()); !errors.Is(err, api.ESTATE) || wait(ctx, releasePoll) != nil {
			return err
		}
	}
}

// entry is a complete file's line of the manifest.
func (p *putter) entry(file int) manifestEntry {
	f := p.plan.files[file]
	e := manifestEntry{path: f.name, mode: f.mode, ids: make([]layout.ObjectID, len(p.parts[file]))}
	for _, s := range p.parts[file] {
		e.ids[s.part.index] = s.id
		e.length += s.part.length
	}
	return e
}

// manifest lists all files in the order of the plan.
func (p *putter) manifest() []manifestEntry {
	entries := make([]manifestEntry, 0, len(p.parts))
	for i := range p.parts {
		entries = append(entries, p.entry(i))
	}
	return entries
}

// views lists all parts in the order of the plan.
func (p *putter) views() putViews {
	views := make(putViews, 0, len(p.made))
	for i, parts := range p.parts {
		sorted := make([]storedPart, len(parts))
		for _, s := range parts {
			sorted[s.part.index] = s
		}
		for _, s := range sorted {
			views = append(views, putView{
				Path: p.plan.files[i].path, ID: s.id.String(), Offset: s.part.offset,
				Length: s.part.length, Capacity: s.cap, Class: p.alloc.Class.String(),
			})
		}
	}
	return views
}

// errShrunk is returned when a file has become shorter while it was stored.
func errShrunk(path string, at int64) error {
	return api.Errorf(api.ESTATE, "", "%s has become shorter while it was stored: it ends at byte %d", path, at)
}

// wrapPath says which file an error is about.
func wrapPath(path string, err error) error {
	return fmt.Errorf("%s: %w", path, err)
}
