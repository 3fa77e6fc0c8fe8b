package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

func newDemo(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "demo [POOL [FILE...]]",
		Short: "Show in an active pool what mpool does, and clean up",
		Long: `Show, step by step, what mpool does and what each step proves: files in mblocks,
read back and compared; an uncommitted mblock that nobody else sees; a log whose
records are durable when an append returns; many objects and a named root committed
at once; handles that keep an object from being deleted; space that adds up.

It works in the pool that is named or, without a name, in the only one that is
active, with the files given or with some that it makes up. It touches nothing that
it has not made itself, and deletes that in the end, also when it fails or is
interrupted.`,
		Example: `  mpoolctl demo
  mpoolctl demo data /etc/services`,
		Args: cobra.ArbitraryArgs,
		RunE: a.verb(func(ctx context.Context, args []string) error {
			files, err := demoFiles(args)
			if err != nil {
				return err
			}
			return a.withDaemon(ctx, func(d daemon) error {
				pool, err := demoPool(ctx, d, args)
				if err != nil {
					return err
				}
				return a.runDemo(ctx, d, pool, files)
			})
		}),
	}
}

// demoPool finds the pool to work in.
func demoPool(ctx context.Context, d daemon, args []string) (string, error) {
	if len(args) > 0 {
		info, err := findPool(ctx, d, args[0])
		return info.Name, err
	}
	return onlyPool(ctx, d)
}

// demo is one run.
type demo struct {
	a     *app
	mine  api.Pool // through the session that writes
	other api.Pool // the same pool through a session of its own, as another process has it
	files []demoFile

	// Everything that it makes carries this tag and, if it is named, this name.
	tag  uint64
	root string

	blocks []layout.ObjectID // the committed mblocks of the files, in their order
	made   []layout.ObjectID // everything that may have to be deleted in the end
}

// demoStep is one step: what is done, and what it proves.
type demoStep struct {
	name   string // in JSON
	title  string
	proves string
	run    func(ctx context.Context) (text string, err error)
}

// demoView is a step that was done.
type demoView struct {
	Step    string  `json:"step"`
	OK      bool    `json:"ok"`
	Text    string  `json:"text"`
	Proves  string  `json:"proves"`
	Seconds float64 `json:"seconds"`

	title string
}

func (v demoView) show(w io.Writer, quiet bool) error {
	if quiet {
		return nil
	}
	_, err := fmt.Fprintf(w, "%s\n  %s\n  => %s\n\n", v.title, v.Text, v.Proves)
	return err
}

// runDemo does all steps and cleans up, whatever happens.
func (a *app) runDemo(ctx context.Context, d daemon, pool string, files []demoFile) error {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	w := &demo{a: a, files: files, tag: binary.LittleEndian.Uint64(random[:])}
	w.root = fmt.Sprintf("demo-%016x", w.tag)
	p, err := d.OpenPool(ctx, pool)
	if err != nil {
		return err
	}
	err = w.withSessions(ctx, pool, func() error { return w.do(ctx, w.steps()) })
	// What an error or an interrupt leaves is cleaned up as well.
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeoutForCleanup)
	defer cancel()
	step := demoStep{
		"clean_up", "Cleaning up", "nothing of this demo is in the pool any more",
		func(ctx context.Context) (string, error) { return w.cleanUp(ctx, p) },
	}
	if err == nil {
		err = w.do(cleanup, []demoStep{step})
	} else if _, cleanErr := step.run(cleanup); cleanErr != nil {
		a.warn("demo: what it had made could not be deleted: %v", cleanErr)
		a.warn("demo: see mpoolctl mblock list %s --tag %d, mpoolctl mlog list %s --tag %d", pool, w.tag, pool, w.tag)
	}
	return errors.Join(err, p.Close())
}

// withSessions calls f with two sessions, each with the pool open.
func (w *demo) withSessions(ctx context.Context, pool string, f func() error) error {
	return w.a.withPool(ctx, pool, func(mine api.Pool) error {
		return w.a.withPool(ctx, pool, func(other api.Pool) error {
			w.mine, w.other = mine, other
			return f()
		})
	})
}

// do does steps one after the other and prints each.
func (w *demo) do(ctx context.Context, steps []demoStep) error {
	for _, s := range steps {
		begin := time.Now()
		text, err := s.run(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		v := demoView{Step: s.name, OK: true, Text: text, Proves: s.proves, Seconds: time.Since(begin).Seconds(), title: s.title}
		if err := w.a.print(v); err != nil {
			return err
		}
	}
	return nil
}

func (w *demo) steps() []demoStep {
	return []demoStep{
		{"store", "Storing " + plural(len(w.files), "file"), "an mblock is durable when its commit returns", w.store},
		{"read", "Reading them back", "what was written is what is read, or it is an error: a checksum covers every 4 KiB", w.read},
		{
			"uncommitted", "Writing an mblock without a commit",
			"an mblock is there for others when it is committed, whole, and not before", w.uncommitted,
		},
		{"log", "Appending to a log", "records come back whole, in order, each exactly once", w.log},
		{"commit_many", "Committing many objects and a root at once", "all or nothing; a root is how a program finds its first object", w.commitMany},
		{"handles", "Deleting what another session uses", "an object lives as long as somebody has a handle on it", w.handles},
		{"space", "Adding up the space", "every byte of the drives is accounted for", w.space},
	}
}

// cleanUp deletes everything that the demo has made and looks whether it is
// gone. What was uncommitted has ended with the demo's sessions.
func (w *demo) cleanUp(ctx context.Context, p api.Pool) (string, error) {
	roots, err := p.Roots(ctx)
	if err != nil {
		return "", err
	}
	for _, r := range roots {
		if r.Name == w.root {
			if err := p.SetRoots(ctx, []api.Root{{Name: w.root}}); err != nil {
				return "", err
			}
		}
	}
	deleted := 0
	for _, id := range w.made {
		err := deleteReleased(ctx, p, id)
		if err != nil && !errors.Is(err, api.ENOENT) {
			return "", err
		}
		if err == nil {
			deleted++
		}
	}
	for o, err := range p.Objects(ctx, api.Filter{Tag: &w.tag, State: api.StateCommitted}) {
		if err != nil {
			return "", err
		}
		return "", api.Errorf(api.EEXIST, "", "%v is still there", o.ID)
	}
	return fmt.Sprintf("deleted %s and the root %s", plural(deleted, "object"), w.root), nil
}

const (
	releaseTimeout = 5 * time.Second
	releasePoll    = 10 * time.Millisecond
)

// deleteReleased deletes a committed object that a session which is being ended
// may still have handles on.
func deleteReleased(ctx context.Context, p api.Pool, id layout.ObjectID) error {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	open := openMblock
	if id.Kind() == layout.KindMlog {
		open = openMlog
	}
	for {
		_, err := deleteObject(ctx, p, id.String(), open)
		if !errors.Is(err, api.EBUSY) {
			return err
		}
		if wait(ctx, releasePoll) != nil {
			return err
		}
	}
}
