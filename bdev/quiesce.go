package bdev

import (
	"context"

	"github.com/mpool-go/mpool/sched"
)

// Quiesce returns when no operation is under way, or with the context's error.
// It is for one task that closes the drive: nobody starts operations any more,
// but some that nobody waits for may not have ended.
func (d *Drive) Quiesce(ctx context.Context) error {
	for {
		c := new(sched.Completion)
		c.Init(d.sched)
		d.idle.Store(c)
		if d.inflight.Load() == 0 {
			d.idle.Store(nil)
			return nil
		}
		if err := d.engine.Await(ctx, c); err != nil {
			d.idle.Store(nil)
			return err
		}
	}
}
