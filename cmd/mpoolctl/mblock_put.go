package main

import (
	"context"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

type mblockPutOptions struct {
	class    classValue
	owner    string
	tag      tagValue
	split    sizeValue
	manifest string
}

func newMblockPut(a *app) *cobra.Command {
	var o mblockPutOptions
	c := &cobra.Command{
		Use:   "put POOL [FILE...|DIR|-]",
		Short: "Store files, a directory or standard input in mblocks",
		Long: `Store each file in an mblock of its own: files, every regular file below one
directory, or standard input. Symbolic links, devices and the like are skipped,
with a note on stderr.

A put stores everything or nothing: when it fails or is interrupted, or can
neither print the ids nor write them to the manifest, it deletes what it had
stored. While it runs, what is stored already is listed in the manifest's name
with .partial; that file stays only when the daemon could no longer be reached to
delete it, or the put was killed.

A manifest is text: the line "mpool-manifest 1", then a line per file with its
path in quotes, permission bits, length and the ids of its mblocks. mblock get
--manifest restores files from it.`,
		Example: `  mpoolctl mblock put data photo.jpg
  mpoolctl mblock put data /srv/site --manifest site.manifest --owner web
  tar c /srv | mpoolctl mblock put data --split 256MiB`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return o.run(ctx, a, args[0], args[1:])
		}),
	}
	f := c.Flags()
	f.Var(&o.class, "class", "media class: capacity or staging")
	f.StringVar(&o.owner, "owner", "", "`NAME` or path (parent/child) of the owner; a new name makes an owner")
	f.Var(&o.tag, "tag", "the application's tag, a number of 64 bits")
	f.Var(&o.split, "split", "split what is longer than SIZE, 1 GiB at most, into several mblocks")
	f.StringVar(&o.manifest, "manifest", "", "write paths and ids to `FILE`")
	return c
}

func (o *mblockPutOptions) run(ctx context.Context, a *app, pool string, args []string) error {
	if o.split < 0 || o.split > api.MaxMblockCapacity || o.split%4096 != 0 {
		return usagef("--split: want a multiple of 4 KiB up to %s", formatSize(api.MaxMblockCapacity))
	}
	plan, err := planPut(args, interruptible(ctx, a.stdin), a.note)
	if err != nil {
		return err
	}
	defer plan.close()
	return a.withPool(ctx, pool, func(p api.Pool) error {
		owner, err := ownerIndex(ctx, p, o.owner)
		if err != nil {
			return err
		}
		partial, err := o.beginManifest(plan)
		if err != nil {
			return err
		}
		alloc := api.AllocOptions{Class: api.Class(o.class), Owner: owner}
		if o.tag.tag != nil {
			alloc.Tag = *o.tag.tag
		}
		bar := a.newProgress("storing", plan.bytes)
		put := newPutter(p, plan, alloc, int64(o.split), partial, bar)
		err = put.run(ctx)
		bar.end()
		if err == nil {
			err = o.report(a, put, partial)
		}
		if err != nil {
			o.afterFailure(ctx, a, put, partial)
		}
		return err
	})
}

// report tells the ids of what is stored. It succeeds when they are known
// somewhere: with a manifest it does not matter whether they can be printed.
func (o *mblockPutOptions) report(a *app, put *putter, partial *partialManifest) error {
	if err := partial.finish(put.manifest()); err != nil {
		return err
	}
	err := a.print(put.views())
	if err != nil && o.manifest != "" {
		a.warn("what is stored is listed in %s, but not here: %v", o.manifest, err)
		return nil
	}
	return err
}

// beginManifest begins the list of what is stored, when one is wanted.
func (o *mblockPutOptions) beginManifest(plan *putPlan) (*partialManifest, error) {
	if o.manifest == "" {
		return nil, nil
	}
	names := make(map[string]bool, len(plan.files))
	for _, f := range plan.files {
		if names[f.name] {
			return nil, usagef("two files would be %q in the manifest", f.name)
		}
		names[f.name] = true
	}
	return newPartialManifest(o.manifest)
}

// afterFailure deletes what was stored, as far as the daemon can be reached,
// and says what stays.
func (o *mblockPutOptions) afterFailure(ctx context.Context, a *app, put *putter, partial *partialManifest) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeoutForCleanup)
	defer cancel()
	left, why := put.undo(ctx)
	if left == 0 {
		partial.remove()
		return
	}
	a.warn("%s that had been or may have been stored could not be deleted again: %s",
		plural(left, "mblock"), oneLine(why.Error()))
	if partial != nil {
		a.warn("the files they make up are listed in %s", partial.path())
		partial.keep()
	}
}

// putView is a stored part of a file as it is shown.
type putView struct {
	Path     string `json:"path"`
	ID       string `json:"id"`
	Offset   int64  `json:"offset"` // of the part in the file
	Length   int64  `json:"length"`
	Capacity int64  `json:"capacity"`
	Class    string `json:"class"`
}

type putViews []putView

func (v putViews) show(w io.Writer, quiet bool) error {
	rows := make([][]string, 0, len(v))
	for _, e := range v {
		if quiet {
			if err := writeLines(w, e.ID); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{e.ID, strconv.FormatInt(e.Length, 10), e.Class, e.Path})
	}
	if quiet {
		return nil
	}
	return writeTable(w, []string{"ID", "LENGTH", "CLASS", "PATH"}, rows)
}
