package mpool

import (
	"context"
	"errors"

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
	const op = "mdc create"
	var logs []*object
	discard := func() {
		for _, l := range logs {
			// What is not committed costs nothing but its zones, which abort frees.
			_ = l.abort(op) //nolint:errcheck // the caller's error is the one to report
		}
	}
	for range 2 {
		l, err := p.allocMlog(ctx, op, o)
		if err != nil {
			discard()
			return 0, err
		}
		logs = append(logs, l)
	}
	for i, l := range logs {
		l.mu.Lock()
		l.desc.Partner = logs[1-i].id
		l.mu.Unlock()
	}
	// The first log's marks are durable before the transaction that creates
	// both: a container is never without content.
	err := mlog.CreateMDC(ctx, mdcConfig(logs[0], logs[1]))
	if err == nil {
		err = p.commitContainer(ctx, op, logs)
	}
	if err != nil {
		if api.CodeOf(err) != api.EUNKNOWN {
			discard()
		}
		return 0, ioError(op, logs[0].drive.dev, err)
	}
	for _, l := range logs {
		l.unref()
	}
	return logs[0].id, nil
}

// commitContainer commits two logs whose content is durable.
func (p *Pool) commitContainer(ctx context.Context, op string, logs []*object) error {
	descs := make([]layout.Object, len(logs))
	for i, l := range logs {
		if _, err := l.startCommit(op); err != nil {
			return err
		}
		_, descs[i] = l.snapshot()
	}
	err := p.commitPrepared(ctx, op, logs, descs, nil)
	if err != nil && api.CodeOf(err) != api.EUNKNOWN {
		for _, l := range logs {
			l.cancelCommit()
		}
	}
	return err
}

func mdcConfig(a, b *object) mlog.MDCConfig {
	_, da := a.snapshot()
	_, db := b.snapshot()
	return mlog.MDCConfig{A: a.logConfig(&da), B: b.logConfig(&db)}
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
	a, err := p.find(op, id)
	if err != nil {
		return pair, err
	}
	_, desc := a.snapshot()
	if desc.Partner == 0 {
		a.unref()
		return pair, &api.Error{Code: api.EINVAL, Op: op, Object: id, Detail: "the log belongs to no metadata container"}
	}
	b, err := p.find(op, desc.Partner)
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
}

// OpenMDC implements [api.Pool].
func (p *Pool) OpenMDC(ctx context.Context, id layout.ObjectID) (api.MDC, error) {
	const op = "mdc open"
	pair, err := p.findPair(op, id)
	if err != nil {
		return nil, err
	}
	claimed := 0
	for _, o := range pair {
		if err = o.claim(ctx, op); err != nil {
			break
		}
		claimed++
	}
	if err == nil {
		c := &container{logs: pair}
		cfg := mdcConfig(pair[0], pair[1])
		cfg.Erase = func(ctx context.Context, which int, generation uint64) error {
			return pair[which].eraseTo(ctx, "mdc compact", generation)
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
	return nil, ioError(op, pair[0].drive.dev, err)
}

// DeleteMDC implements [api.Pool].
func (p *Pool) DeleteMDC(ctx context.Context, id layout.ObjectID) error {
	const op = "mdc delete"
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
	if err := c.ended.check(op, c.logs[0].id); err != nil {
		return err
	}
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

// CompactAppend implements [api.MDC].
func (c *container) CompactAppend(ctx context.Context, record []byte) error {
	return ioError("mdc compact", c.logs[0].drive.dev, c.MDC.CompactAppend(ctx, record))
}

// OpenRead implements [api.MDC].
func (c *container) OpenRead(context.Context) (api.LogReader, error) {
	if err := c.ended.check("mdc read", c.logs[0].id); err != nil {
		return nil, err
	}
	return &containerReader{MDCReader: c.NewReader(mlog.ReaderOptions{Unsynced: true}), c: c}, nil
}

// containerReader reads the active log's records.
type containerReader struct {
	*mlog.MDCReader
	c *container
}

// Close implements [api.LogReader].
func (r *containerReader) Close() error { return nil }

// Close implements [api.MDC].
func (c *container) Close(ctx context.Context) error {
	const op = "mdc close"
	if err := c.ended.end(op, c.logs[0].id); err != nil {
		return err
	}
	err := c.MDC.Close(ctx)
	for _, o := range c.logs {
		o.unclaim()
		o.unref()
	}
	if errors.Is(err, context.Canceled) {
		return api.ContextError(op, err)
	}
	return ioError(op, c.logs[0].drive.dev, err)
}
