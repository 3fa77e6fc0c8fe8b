package bdev

import (
	"context"

	"github.com/mpool-go/mpool/sched"
)

// Quiesce returns when no operation is under way and nobody holds the drive, or
// with the context's error. It is for one task that closes the drive: nobody
// begins operations any more, but some that nobody waits for may not have ended.
func (d *Drive) Quiesce(ctx context.Context) error {
	for {
		c := new(sched.Completion)
		c.Init(d.sched)
		d.idle.Store(c)
		if d.inflight.Load() == 0 && d.held.Load() == 0 {
			d.idle.Store(nil)
			return nil
		}
		if err := d.engine.Await(ctx, c); err != nil {
			d.idle.Store(nil)
			return err
		}
	}
}

// Hold says that operations will come which are prepared and not yet started:
// until Release, Quiesce waits for them as for one under way. It never blocks.
func (d *Drive) Hold() { d.held.Add(1) }

// Release ends a Hold. It never blocks and may be called from where operations
// end.
func (d *Drive) Release() {
	if d.held.Add(-1) == 0 {
		d.tellIdle()
	}
}

// tellIdle wakes who waits in Quiesce.
func (d *Drive) tellIdle() {
	if c := d.idle.Load(); c != nil {
		c.Done()
	}
}
