package sim

import (
	"context"
	"errors"

	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool/check"
)

// medium is a disk as the offline checker reads it: without the engine.
type medium struct{ *devsim.Disk }

func (medium) Path() string { return "sim" }
func (medium) Close() error { return nil }

// offline lets the independent reader look at a medium: it must find nothing
// wrong with what a crash leaves.
func offline(d *devsim.Disk) error {
	r, err := check.Run(ctx, []string{"sim"}, check.Options{
		Data: true, Reads: 1,
		Open: func(context.Context, string) (check.Source, error) { return medium{d}, nil },
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
