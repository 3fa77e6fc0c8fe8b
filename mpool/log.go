package mpool

import (
	"context"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
)

// openLog is an object's open log: recovered at the first open, closed at the
// last close. While busy somebody opens, closes or erases it.
type openLog struct {
	log    *mlog.Log
	opens  int
	append bool // one of the opens is for append
	busy   bool
}

// Mlog is a handle on an mlog; it implements [api.Mlog].
type Mlog struct {
	handle
}

func (o *object) logConfig(desc *layout.Object) mlog.Config {
	return mlog.Config{
		Sched: o.pool.sched, Drive: o.drive.dev, Extent: desc.Extent, ID: desc.ID, Birth: desc.Birth,
		Generation: desc.Generation, Epoch: o.pool.epoch(),
	}
}

func (p *Pool) epoch() uint64 { return p.sb.Load().Epoch }

// AllocMlog implements [api.Pool].
func (p *Pool) AllocMlog(ctx context.Context, o api.AllocOptions) (api.Mlog, error) {
	obj, err := p.allocMlog(ctx, "mlog alloc", o)
	if err != nil {
		return nil, err
	}
	return &Mlog{handle{obj: obj}}, nil
}

// maxLogCapacity bounds a log, in bytes: its extent's blocks must be countable.
const maxLogCapacity = 1 << 40

func (p *Pool) allocMlog(ctx context.Context, op string, o api.AllocOptions) (*object, error) {
	if o.Capacity <= 0 || o.Capacity > maxLogCapacity {
		return nil, api.Errorf(api.EINVAL, op, "capacity %d: want 1 to %d bytes", o.Capacity, int64(maxLogCapacity))
	}
	return p.alloc(ctx, op, layout.KindMlog, 0, o, mlog.BlocksFor(o.Capacity))
}

// Mlog implements [api.Pool].
func (p *Pool) Mlog(_ context.Context, id layout.ObjectID) (api.Mlog, error) {
	const op = "mlog find"
	if err := p.alive(op); err != nil {
		return nil, err
	}
	if id.Kind() != layout.KindMlog || !id.Valid() {
		return nil, &api.Error{Code: api.EINVAL, Op: op, Object: id, Detail: "not an mlog's id"}
	}
	o, err := p.find(op, id)
	if err != nil {
		return nil, err
	}
	return &Mlog{handle{obj: o}}, nil
}

// Get implements [api.Object].
func (m *Mlog) Get(context.Context) (api.Object, error) {
	o, err := m.live("mlog get")
	if err != nil {
		return nil, err
	}
	if err := o.ref("mlog get"); err != nil {
		return nil, err
	}
	return &Mlog{handle{obj: o}}, nil
}

// seize waits until nobody opens, closes or erases the log and makes the caller
// the one who does. The caller holds o.mu before and after.
//
// +checklocks:o.mu
func (o *object) seize(ctx context.Context, op string) error {
	for o.log.busy {
		if err := o.cond.Wait(ctx); err != nil {
			return api.ContextError(op, err)
		}
	}
	o.log.busy = true
	return nil
}

// +checklocks:o.mu
func (o *object) releaseLocked() {
	o.log.busy = false
	o.cond.Broadcast()
}

// openLog recovers the log unless it is open, and counts the open. The caller
// has a reference of its own for it.
func (o *object) openLog(ctx context.Context, op string, forAppend bool) (*mlog.Log, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.seize(ctx, op); err != nil {
		return nil, err
	}
	defer o.releaseLocked()
	switch {
	case o.state != committed:
		return nil, &api.Error{Code: api.ESTATE, Op: op, Object: o.id, Detail: "the log is not committed"}
	case forAppend && o.log.append:
		return nil, &api.Error{Code: api.EBUSY, Op: op, Object: o.id, Detail: "the log is open for append already"}
	}
	if o.log.log == nil {
		c := o.logConfig(&o.desc)
		o.mu.Unlock()
		l, err := mlog.Open(ctx, c)
		o.mu.Lock()
		if err != nil {
			return nil, ioError(op, o.drive.dev, err)
		}
		o.log.log = l
	}
	o.log.opens++
	o.log.append = o.log.append || forAppend
	return o.log.log, nil
}

// closeLog ends an open; the last one closes the log.
func (o *object) closeLog(ctx context.Context, op string, forAppend bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	// Closing must not be given up half way: it waits whatever happens, and
	// what it waits for is bounded by the drive.
	if err := o.seize(context.Background(), op); err != nil {
		return err
	}
	defer o.releaseLocked()
	l := o.log.log
	var err error
	if forAppend {
		o.mu.Unlock()
		err = l.Sync(ctx)
		o.mu.Lock()
		o.log.append = false
	}
	o.log.opens--
	if o.log.opens == 0 {
		o.log.log = nil
		o.mu.Unlock()
		if cerr := l.Close(ctx); err == nil {
			err = cerr
		}
		o.mu.Lock()
	}
	return ioError(op, o.drive.dev, err)
}

// OpenAppend implements [api.Mlog].
func (m *Mlog) OpenAppend(ctx context.Context) (api.Appender, error) {
	const op = "mlog open"
	l, o, err := m.open(ctx, op, true)
	if err != nil {
		return nil, err
	}
	return &appender{obj: o, log: l}, nil
}

// OpenRead implements [api.Mlog]. The reader sees unsynced records too.
func (m *Mlog) OpenRead(ctx context.Context) (api.LogReader, error) { return m.openRead(ctx, true) }

// OpenReadSynced is OpenRead for somebody who is not in the writer's process:
// the reader sees synced records only.
func (m *Mlog) OpenReadSynced(ctx context.Context) (api.LogReader, error) {
	return m.openRead(ctx, false)
}

func (m *Mlog) openRead(ctx context.Context, unsynced bool) (api.LogReader, error) {
	l, o, err := m.open(ctx, "mlog open", false)
	if err != nil {
		return nil, err
	}
	return &logReader{Reader: l.NewReader(mlog.ReaderOptions{Unsynced: unsynced}), obj: o}, nil
}

func (m *Mlog) open(ctx context.Context, op string, forAppend bool) (*mlog.Log, *object, error) {
	o, err := m.live(op)
	if err != nil {
		return nil, nil, err
	}
	_, desc := o.snapshot()
	if forAppend && desc.Partner != 0 {
		return nil, nil, &api.Error{
			Code: api.ESTATE, Op: op, Object: o.id,
			Detail: "the log belongs to a metadata container; open that",
		}
	}
	if err := o.ref(op); err != nil {
		return nil, nil, err
	}
	l, err := o.openLog(ctx, op, forAppend)
	if err != nil {
		o.unref()
		return nil, nil, err
	}
	return l, o, nil
}

// Erase implements [api.Mlog].
func (m *Mlog) Erase(ctx context.Context, minGeneration uint64) error {
	const op = "mlog erase"
	o, err := m.live(op)
	if err != nil {
		return err
	}
	_, desc := o.snapshot()
	if desc.Partner != 0 {
		return &api.Error{Code: api.ESTATE, Op: op, Object: o.id, Detail: "the log belongs to a metadata container"}
	}
	return o.erase(ctx, op, minGeneration, 0)
}

// erase drops the log's records: the empty log of the new generation is durable
// before the record that makes it current. opens is how many opens the caller
// has itself.
func (o *object) erase(ctx context.Context, op string, minGeneration uint64, opens int) error {
	if err := o.pool.alive(op); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.seize(ctx, op); err != nil {
		return err
	}
	defer o.releaseLocked()
	switch {
	case o.state != committed:
		return &api.Error{Code: api.ESTATE, Op: op, Object: o.id, Detail: "the log is not committed"}
	case o.log.opens > opens:
		return &api.Error{Code: api.EBUSY, Op: op, Object: o.id, Detail: "the log is open"}
	case o.desc.Generation == 1<<64-1:
		return &api.Error{Code: api.ESTATE, Op: op, Object: o.id, Detail: "the log has had all its generations"}
	}
	generation := max(o.desc.Generation+1, minGeneration)
	o.mu.Unlock()
	err := o.eraseTo(ctx, op, generation)
	o.mu.Lock()
	return err
}

// eraseTo makes the empty log of a generation durable and then current. The
// caller has the log to himself.
func (o *object) eraseTo(ctx context.Context, op string, generation uint64) error {
	_, now := o.snapshot()
	next := now
	next.Generation = generation
	if err := mlog.Format(ctx, o.logConfig(&next), now.Generation); err != nil {
		return ioError(op, o.drive.dev, err)
	}
	t := &txn{op: op, ids: []layout.ObjectID{o.id}, apply: func() {
		o.mu.Lock()
		o.desc.Generation = next.Generation
		o.mu.Unlock()
		o.pool.table.Update(o.id, func(e *layout.Object) { e.Generation = next.Generation })
	}}
	t.rec.Erase(next.ID, next.Birth, next.Generation)
	return o.pool.meta.commit(ctx, t)
}

// appender implements [api.Appender].
type appender struct {
	obj   *object
	log   *mlog.Log
	ended handleEnd
}

// Append implements [api.Appender].
func (a *appender) Append(ctx context.Context, record []byte, sync bool) (uint64, error) {
	const op = "mlog append"
	if err := a.ended.check(op, a.obj.id); err != nil {
		return 0, err
	}
	n, err := a.log.Append(ctx, record)
	if err == nil && sync {
		if err = a.log.SyncTo(ctx, n+1); err != nil && ctx.Err() != nil {
			err = &api.Error{
				Code: api.EUNKNOWN, Op: op, Object: a.obj.id, Err: err,
				Detail: "the record was appended; whether it is durable is unknown",
			}
		}
	}
	return n, ioError(op, a.obj.drive.dev, err)
}

// Sync implements [api.Appender].
func (a *appender) Sync(ctx context.Context) error {
	if err := a.ended.check("mlog sync", a.obj.id); err != nil {
		return err
	}
	return ioError("mlog sync", a.obj.drive.dev, a.log.Sync(ctx))
}

// Len implements [api.Appender].
func (a *appender) Len() (uint64, int64) { return a.log.Len() }

// Close implements [api.Appender].
func (a *appender) Close(ctx context.Context) error {
	if err := a.ended.end("mlog close", a.obj.id); err != nil {
		return err
	}
	err := a.obj.closeLog(ctx, "mlog close", true)
	a.obj.unref()
	return err
}

// logReader implements [api.LogReader].
type logReader struct {
	*mlog.Reader
	obj   *object
	ended handleEnd
}

// Next implements [api.LogReader].
func (r *logReader) Next(ctx context.Context, p []byte) (int, error) {
	if err := r.ended.check("mlog read", r.obj.id); err != nil {
		return 0, err
	}
	return r.Reader.Next(ctx, p)
}

// Seek implements [api.LogReader].
func (r *logReader) Seek(ctx context.Context, record uint64) error {
	if err := r.ended.check("mlog seek", r.obj.id); err != nil {
		return err
	}
	return r.Reader.Seek(ctx, record)
}

// Close implements [api.LogReader].
func (r *logReader) Close() error {
	if err := r.ended.end("mlog close", r.obj.id); err != nil {
		return err
	}
	err := r.obj.closeLog(context.Background(), "mlog close", false)
	r.obj.unref()
	return err
}
