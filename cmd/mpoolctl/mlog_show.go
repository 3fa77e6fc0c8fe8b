package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

func newMlogShow(a *app) *cobra.Command {
	return newObjectShow(a, "mlog", openMlog)
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
