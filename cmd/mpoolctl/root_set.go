package main

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

func newRootSet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "set POOL NAME=ID...",
		Short:   "Set named roots, all in one transaction",
		Example: `  mpoolctl root set data journal=0200000000000011 tree=@old-tree`,
		Args:    cobra.MinimumNArgs(2),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			names, ids, err := parseRoots(args[1:])
			if err != nil {
				return err
			}
			return a.withPool(ctx, args[0], func(p api.Pool) error {
				roots := make([]api.Root, 0, len(names))
				for i, name := range names {
					id, err := objectID(ctx, p, ids[i])
					if err != nil {
						return err
					}
					roots = append(roots, api.Root{Name: name, ID: id})
				}
				if err := p.SetRoots(ctx, roots); err != nil {
					return err
				}
				return a.print(newRootsView(roots))
			})
		}),
	}
}

// parseRoots reads NAME=ID pairs. The last = ends the name.
func parseRoots(pairs []string) (names, ids []string, err error) {
	for _, pair := range pairs {
		i := strings.LastIndexByte(pair, '=')
		if i < 0 {
			return nil, nil, usagef("%q: want NAME=ID", pair)
		}
		names, ids = append(names, pair[:i]), append(ids, pair[i+1:])
	}
	return names, ids, checkIDs(ids)
}

// rootView is a named root as it is shown.
type rootView struct {
	Name string `json:"name"`
	ID   string `json:"id"`
}

type rootsView []rootView

func newRootsView(roots []api.Root) rootsView {
	v := make(rootsView, 0, len(roots))
	for _, r := range roots {
		v = append(v, rootView{Name: r.Name, ID: r.ID.String()})
	}
	return v
}

func (v rootsView) show(w io.Writer, quiet bool) error {
	rows := make([][]string, 0, len(v))
	for _, r := range v {
		if quiet {
			if err := writeLines(w, r.Name); err != nil {
				return err
			}
		}
		rows = append(rows, []string{r.Name, r.ID})
	}
	if quiet {
		return nil
	}
	return writeTable(w, []string{"NAME", "ID"}, rows)
}
