package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

func newMlogShow(a *app) *cobra.Command {
	c := newObjectShow(a, "mlog", openMlog, a.logContents)
	c.Long += ` The log is opened for
that, to count its records and their bytes; what cannot be opened is shown without.`
	return c
}

// logContents counts the records of a log, and their bytes, which are known of open logs.
func (a *app) logContents(ctx context.Context, obj api.Object, info *api.ObjectInfo) error {
	log, ok := obj.(api.Mlog)
	if !ok || info.State != api.StateCommitted {
		return nil
	}
	r, err := log.OpenRead(ctx)
	if err != nil {
		a.note("records and length are not known: %v", err)
		return nil
	}
	opened, err := log.Info(ctx)
	info.Records, info.Length, info.Generation = opened.Records, opened.Length, opened.Generation
	return errors.Join(err, r.Close())
}

// openLog opens an mlog by its id or a root's name.
func openLog(ctx context.Context, p api.Pool, s string) (api.Mlog, error) {
	id, err := objectID(ctx, p, s)
	if err != nil {
		return nil, err
	}
	return p.Mlog(ctx, id)
}

// openMlog is openLog for the verbs that both kinds have.
func openMlog(ctx context.Context, p api.Pool, s string) (api.Object, error) {
	return openLog(ctx, p, s)
}
