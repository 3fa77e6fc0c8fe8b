package mpool

import (
	"context"
	"errors"
	"slices"
	"syscall"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// Close deactivates the pool: it waits for background work, closes the metadata
// log cleanly and the drives. EBUSY while handles are in use; uncommitted
// objects whose handles were put are discarded.
func (p *Pool) Close() error { return p.close(context.Background(), false) }

// Abandon closes the pool whatever is in use, as a process's death would:
// uncommitted objects are gone, committed ones and synced records stay. For a
// daemon that must end. EUNKNOWN when the context ends first; it goes on.
func (p *Pool) Abandon(ctx context.Context) error { return p.close(ctx, true) }

func (p *Pool) close(ctx context.Context, force bool) error {
	return p.change(ctx, opDeactivate, func() error {
		if p.closed.Load() {
			return api.Errorf(api.EBADF, opDeactivate, "the pool is deactivated already")
		}
		if err := p.retire(force); err != nil {
			return err
		}
		return p.shut(false, func(*drive) error { return nil })
	})
}

const opDeactivate = "pool deactivate"

// change changes the pool as a whole: one at a time. If the context ends before
// the change does, that goes on: EUNKNOWN.
func (p *Pool) change(ctx context.Context, op string, f func() error) error {
	if err := p.life.enter(ctx, op); err != nil {
		return err
	}
	left, err := p.ending.run(ctx, op, func() error {
		defer p.life.leave()
		return f()
	}, nil)
	if left {
		return &api.Error{Code: api.EUNKNOWN, Op: op, Err: err, Detail: "it goes on; look at the pool to see its outcome"}
	}
	return err
}

// shut ends the pool, which is retired: the metadata log, then each drive's
// background work, then the drive, with which last is done before it is closed.
// A drive that hangs holds up itself only. With ordered the metadata drive comes
// when all others are through. The caller is in life.
func (p *Pool) shut(ordered bool, last func(*drive) error) error {
	ctx := context.Background()
	p.fence.close()
	p.freed.close()
	err := errors.Join(p.meta.close(ctx), p.background.wait(ctx))
	var j joiner
	j.init(p.sched)
	own := p.metaDrive()
	for _, d := range p.drives {
		if d != own && d.dev != nil {
			j.start(p.sched, "drive close", func() error { return d.shut(ctx, last) })
		}
	}
	if !ordered {
		err = errors.Join(err, own.shut(ctx, last))
	}
	err = errors.Join(err, j.wait())
	if ordered {
		err = errors.Join(err, own.shut(ctx, last))
	}
	return err
}

// shut waits for what is under way on the drive and closes it.
func (d *drive) shut(ctx context.Context, last func(*drive) error) error {
	err := d.background.wait(ctx)
	d.drain.close()
	return errors.Join(err, ioError(opDeactivate, d.dev, d.dev.Quiesce(ctx)),
		ioError(opDeactivate, d.dev, last(d)), ioError(opDeactivate, d.dev, closeIdle(d.dev)))
}

// closeIdle closes a drive when no operation is under way any more: operations
// that a context ended the wait for may not have ended.
func closeIdle(d *bdev.Drive) error {
	for {
		if err := d.Quiesce(context.Background()); err != nil {
			return err
		}
		if err := d.Close(); !errors.Is(err, syscall.EBUSY) {
			return err
		}
	}
}

// closeDrive closes a drive that a failed operation leaves: at once, or when
// the operations under way have ended.
func closeDrive(s *sched.Sched, d *bdev.Drive) error {
	if d.InFlight() == 0 {
		return closeIdle(d)
	}
	s.Go("drive close", func() {
		_ = closeIdle(d) //nolint:errcheck // nobody is left to be told
	})
	return nil
}

// retire lets nobody use the pool any more: at once, or if nobody holds a
// reference.
func (p *Pool) retire(force bool) error {
	p.usesMu.Lock()
	defer p.usesMu.Unlock()
	busy := make([]layout.ObjectID, 0, len(p.uses))
	for id, o := range p.uses { // order does not matter: sorted below
		if o.use.Refs() > 0 {
			busy = append(busy, id)
		}
	}
	if len(busy) == 0 || force {
		p.closed.Store(true)
		return nil
	}
	slices.Sort(busy)
	return api.Errorf(api.EBUSY, opDeactivate, "%d objects are in use, %v for one", len(busy), busy[0])
}
