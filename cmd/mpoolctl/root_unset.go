package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

func newRootUnset(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "unset POOL NAME...",
		Short:   "Remove named roots, all in one transaction; their objects stay",
		Example: `  mpoolctl root unset data journal`,
		Args:    cobra.MinimumNArgs(2),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return a.withPool(ctx, args[0], func(p api.Pool) error {
				removed, changes, err := chooseRoots(ctx, p, args[1:])
				if err != nil {
					return err
				}
				if err := p.SetRoots(ctx, changes); err != nil {
					return err
				}
				return a.print(newRootsView(removed))
			})
		}),
	}
}

// chooseRoots finds roots by name and makes the changes that unset them.
func chooseRoots(ctx context.Context, p api.Pool, names []string) (found, unset []api.Root, err error) {
	roots, err := p.Roots(ctx)
	if err != nil {
		return nil, nil, err
	}
	byName := make(map[string]api.Root, len(roots))
	for _, r := range roots {
		byName[r.Name] = r
	}
	for _, name := range names {
		r, ok := byName[name]
		if !ok {
			return nil, nil, api.Errorf(api.ENOENT, "", "the pool has no root named %q", name)
		}
		found = append(found, r)
		unset = append(unset, api.Root{Name: name})
	}
	return found, unset, nil
}
