package sim

import (
	"context"
	"errors"

	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool/check"
)

// medium is a disk as the offline checker reads it: without the engine.
type medium struct{ *devsim.Disk }

func (m medium) Path() string { return m.Options().Name }
func (medium) Close() error   { return nil }

// offline lets the independent reader look at media: it must find nothing wrong
// with what a crash leaves.
func offline(paths []string, disks devsim.Rack) error {
	r, err := check.Run(ctx, paths, check.Options{
		Data: true, Reads: 1,
		Open: func(_ context.Context, path string) (check.Source, error) { return medium{disks.Disk(path)}, nil },
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range r.Problems {
		errs = append(errs, errors.New("check: "+p.String()+" (S45)"))
	}
	return errors.Join(errs...)
}
