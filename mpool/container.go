package mpool

import (
	"context"
	"errors"
	"fmt"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
)

// container implements [api.MDC] over two objects of the pool.
type container struct {
	*mlog.MDC
	logs  [2]*object
	ended handleEnd
}

// CreateMDC implements [api.Pool].
func (p *Pool) CreateMDC(ctx context.Context, o api.AllocOptions) (layout.ObjectID, error) {
	return p.createContainer(ctx, o, "")
}

// SystemContainer opens the system's own container of a name, which is a root that
// begins with '.', and creates both in one transaction, with logs of so many bytes,
// if there is no such root. capacity 0 creates none: ENOENT. Errors else: those of
// CreateMDC and OpenMDC.
func (p *Pool) SystemContainer(ctx context.Context, name string, capacity int64) (api.MDC, error) {
	const op = "system container"
	if len(name) < 2 || len(name) > api.MaxRootName || name[0] != '.' || !printable(name) {
		return nil, api.Errorf(api.EINVAL, op, "root name %q: the system's begin with '.'", name)
	}
	id, ok := p.names.root(name)
	if !ok && capacity == 0 {
		return nil, api.Errorf(api.ENOENT, op, "no root %q", name)
	}
	if !ok {
		var err error
		if id, err = p.createContainer(ctx, api.AllocOptions{Capacity: capacity}, name); err != nil {
			return nil, err
		}
	}
	return p.OpenMDC(ctx, id)
}

// createContainer creates a container, and a root for it if that has a name.
func (p *Pool) createContainer(ctx context.Context, o api.AllocOptions, root string) (layout.ObjectID, error) {
	const op = "mdc create"
	logs, err := p.allocPair(ctx, op, o)
	if err != nil {
		return 0, err
	}
	for i, l := range logs {
		l.mu.Lock()
		l.desc.Partner = logs[1-i].id
		l.mu.Unlock()
	}
	if err := p.formatContainer(ctx, logs); err != nil {
		discard(op, logs)
		return 0, notDone(op, ioError(op, logs[0].drive.dev, err))
	}
	_, a := logs[0].snapshot()
	_, b := logs[1].snapshot()
	var roots []api.Root
	if root != "" {
		roots = []api.Root{{Name: root, ID: logs[0].id}}
	}
	err = p.commitPrepared(ctx, op, logs, []layout.Object{a, b}, roots)
	switch {
	case err == nil, api.CodeOf(err) == api.EUNKNOWN:
		for _, l := range logs {
			l.unref()
		}
		return logs[0].id, err
	}
	discard(op, logs)
	return 0, ioError(op, logs[0].drive.dev, err)
}

// allocPair allocates the two logs of a container, on one drive: a container
// needs no more than one to work. They are committing from the beginning, so
// that nobody who guesses its id commits or aborts one alone.
func (p *Pool) allocPair(ctx context.Context, op string, o api.AllocOptions) ([]*object, error) {
	blocks, err := logBlocks(op, o)
	if err == nil {
		err = p.allocatable(ctx, op, o)
	}
	if err != nil {
		return nil, err
	}
	d, runs, err := p.settle(ctx, op, layout.KindMlog, o, blocks, 2, true)
	if err != nil {
		return nil, err
	}
	var logs []*object
	for i, run := range runs {
		l, err := p.adopt(ctx, op, layout.NewObjectID(layout.KindMlog, 0), committing, o, d, run, true)
		if err != nil {
			if i == 0 {
				p.giveUp(layout.KindMlog, o.Owner, d, runs[1])
			}
			discard(op, logs)
			return nil, err
		}
		logs = append(logs, l)
	}
	return logs, nil
}

// discard gives up logs whose commit was not sent.
func discard(op string, logs []*object) {
	for _, l := range logs {
		l.cancelCommit()
		if l.abort(op) != nil {
			l.unref() // whoever has found it meanwhile can abort it
		}
	}
}

// formatContainer makes the first log's marks durable, before the transaction
// that creates both: a container is never without content. If the context ends
// before, that goes on, and both extents are pinned until it is done.
func (p *Pool) formatContainer(ctx context.Context, logs []*object) error {
	cfg := mdcConfig(logs[0], logs[1])
	for i, l := range logs {
		if !l.use.Pin() {
			panic(fmt.Sprintf("mpool: log %d of a new container refuses a pin", i))
		}
	}
	_, err := logs[0].drive.background.run(ctx, "container format", func() error {
		defer logs[0].use.Unpin()
		defer logs[1].use.Unpin()
		return mlog.CreateMDC(context.Background(), cfg)
	}, nil)
	return err
}

func mdcConfig(a, b *object) mlog.MDCConfig {
	_, da := a.snapshot()
	_, db := b.snapshot()
	return mlog.MDCConfig{A: a.logConfig(&da), B: b.logConfig(&db), OnFailure: a.poisoned}
}

// findPair returns both logs of a container, each with one more reference.
func (p *Pool) findPair(op string, id layout.ObjectID) ([2]*object, error) {
	var pair [2]*object
	if err := p.alive(op); err != nil {
		return pair, err
	}
	if id.Kind() != layout.KindMlog || !id.Valid() {
		return pair, &api.Error{Code: api.EINVAL, Op: op, Object: id, Detail: "not a metadata container's id"}
	}
	a, err := p.find(context.Background(), op, id)
	if err != nil {
		return pair, err
	}
	_, desc := a.snapshot()
	if desc.Partner == 0 {
		a.unref()
		return pair, &api.Error{Code: api.EINVAL, Op: op, Object: id, Detail: "the log belongs to no metadata container"}
	}
	b, err := p.find(context.Background(), op, desc.Partner)
	if err != nil {
		a.unref()
		return pair, err
	}
	if a.id > b.id {
		a, b = b, a
	}
	return [2]*object{a, b}, nil
}

// claim makes the logs open for append, by the container; nobody else may.
func (o *object) claim(ctx context.Context, op string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.seize(ctx, op); err != nil {
		return err
	}
	defer o.releaseLocked()
	if o.log.append || o.state != committed {
		return &api.Error{Code: api.EBUSY, Op: op, Object: o.id, Detail: "the metadata container is open already"}
	}
	o.log.append = true
	o.log.opens++
	return nil
}

func (o *object) unclaim() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.log.append = false
	o.log.opens--
	o.dropUnusedLocked()
}

// OpenMDC implements [api.Pool].
func (p *Pool) OpenMDC(ctx context.Context, id layout.ObjectID) (api.MDC, error) {
	const op = "mdc open"
	if err := timely(ctx, op); err != nil {
		return nil, err
	}
	pair, err := p.findPair(op, id)
	if err != nil {
		return nil, err
	}
	claimed := 0
	for _, o := range pair {
		if err = o.drive.present(op, o.id); err != nil {
			break
		}
		if err = o.claim(ctx, op); err != nil {
			break
		}
		claimed++
	}
	if err == nil {
		c := &container{logs: pair}
		cfg := mdcConfig(pair[0], pair[1])
		cfg.Erase = func(ctx context.Context, which int, generation uint64) error {
			return pair[which].erase(ctx, "mdc compact", generation, 1)
		}
		if c.MDC, err = mlog.OpenMDC(ctx, cfg); err == nil {
			return c, nil
		}
	}
	for i, o := range pair {
		if i < claimed {
			o.unclaim()
		}
		o.unref()
	}
	return nil, p.corrupted(ioError(op, pair[0].drive.dev, err))
}

// DeleteMDC implements [api.Pool].
func (p *Pool) DeleteMDC(ctx context.Context, id layout.ObjectID) error {
	const op = "mdc delete"
	if err := timely(ctx, op); err != nil {
		return err
	}
	pair, err := p.findPair(op, id)
	if err != nil {
		return err
	}
	if err := p.remove(ctx, op, pair[0], pair[1]); err != nil {
		pair[0].unref()
		pair[1].unref()
		return err
	}
	return nil
}

// Append implements [api.MDC].
func (c *container) Append(ctx context.Context, record []byte, sync bool) error {
	const op = "mdc append"
	if err := c.writable(ctx, op); err != nil {
		return err
	}
	c.logs[0].pool.fence.touch()
	n, err := c.MDC.Append(ctx, record)
	if err == nil && sync {
		if err = c.SyncTo(ctx, n+1); err != nil && ctx.Err() != nil {
			err = &api.Error{
				Code: api.EUNKNOWN, Op: op, Object: c.logs[0].id, Err: err,
				Detail: "the record was appended; whether it is durable is unknown",
			}
		}
	}
	return ioError(op, c.logs[0].drive.dev, err)
}

// usable refuses calls on a container that is closed, or whose pool is, and those
// that come too late.
func (c *container) usable(ctx context.Context, op string) error {
	if err := c.ended.check(op, c.logs[0].id); err != nil {
		return err
	}
	if err := c.logs[0].pool.alive(op); err != nil {
		return err
	}
	return timely(ctx, op)
}

// writable refuses what writes in a read-only pool, too: somebody else may have
// the drive.
func (c *container) writable(ctx context.Context, op string) error {
	if err := c.usable(ctx, op); err != nil {
		return err
	}
	return c.logs[0].pool.writable(op)
}

// Sync implements [api.MDC].
func (c *container) Sync(ctx context.Context) error {
	const op = "mdc sync"
	if err := c.writable(ctx, op); err != nil {
		return err
	}
	return ioError(op, c.logs[0].drive.dev, c.MDC.Sync(ctx))
}

// BeginAppend implements [Beginner].
func (c *container) BeginAppend(record []byte, sync bool, done func(error)) (uint64, error) {
	const op = "mdc append"
	if err := c.writable(context.Background(), op); err != nil {
		return 0, err
	}
	if !sync {
		done = nil
	}
	c.logs[0].pool.fence.touch()
	n, err := c.MDC.BeginAppend(done, record)
	return n, beginError(op, c.logs[0], err)
}

// BeginSync implements [Beginner].
func (c *container) BeginSync(done func(error)) error {
	const op = "mdc sync"
	if err := c.writable(context.Background(), op); err != nil {
		return err
	}
	return beginError(op, c.logs[0], c.MDC.BeginSync(done))
}

const opContainerCompact = "mdc compact"

// CompactStart implements [api.MDC].
func (c *container) CompactStart(ctx context.Context) error {
	if err := c.writable(ctx, opContainerCompact); err != nil {
		return err
	}
	return ioError(opContainerCompact, c.logs[0].drive.dev, c.MDC.CompactStart(ctx))
}

// CompactAppend implements [api.MDC].
func (c *container) CompactAppend(ctx context.Context, record []byte) error {
	if err := c.writable(ctx, opContainerCompact); err != nil {
		return err
	}
	return ioError(opContainerCompact, c.logs[0].drive.dev, c.MDC.CompactAppend(ctx, record))
}

// CompactEnd implements [api.MDC].
func (c *container) CompactEnd(ctx context.Context) error {
	if err := c.writable(ctx, opContainerCompact); err != nil {
		return err
	}
	return ioError(opContainerCompact, c.logs[0].drive.dev, c.MDC.CompactEnd(ctx))
}

// CompactAbort implements [api.MDC].
func (c *container) CompactAbort(ctx context.Context) error {
	if err := c.usable(ctx, opContainerCompact); err != nil {
		return err
	}
	return ioError(opContainerCompact, c.logs[0].drive.dev, c.MDC.CompactAbort(ctx))
}

// Close implements [api.MDC]. It is closed whatever happens, as a log is.
func (c *container) Close(ctx context.Context) error {
	const op = "mdc close"
	if err := c.ended.end(op, c.logs[0].id); err != nil {
		return err
	}
	left, err := c.logs[0].drive.background.run(ctx, "container close", func() error {
		defer c.logs[0].unclaim()
		defer c.logs[1].unclaim()
		if err := c.logs[0].pool.writable(op); err != nil {
			// Nothing is written any more: somebody else may have the drive.
			return errors.Join(err, c.Abandon())
		}
		return c.MDC.Close(context.Background())
	}, nil)
	for _, o := range c.logs {
		o.unref()
	}
	if left {
		return &api.Error{
			Code: api.EUNKNOWN, Op: op, Object: c.logs[0].id, Err: err,
			Detail: "the container is being closed; whether its last records are durable is unknown",
		}
	}
	return ioError(op, c.logs[0].drive.dev, err)
}
