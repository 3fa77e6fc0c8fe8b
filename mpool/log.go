package mpool

import (
	"context"
	"errors"

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
	seized uint64 // how often it was busy
}

// Mlog is a handle on an mlog; it implements [api.Mlog].
type Mlog struct {
	handle
}

func (o *object) logConfig(desc *layout.Object) mlog.Config {
	return mlog.Config{
		Sched: o.pool.sched, Drive: o.drive.dev, Extent: desc.Extent, ID: desc.ID, Birth: desc.Birth,
		Generation: desc.Generation, Epoch: o.pool.epoch(), OnFailure: o.poisoned,
		Writers: o.drive.logs,
	}
}

func (p *Pool) epoch() uint64 { return p.sb.Load().Epoch }

// AllocMlog implements [api.Pool].
func (p *Pool) AllocMlog(ctx context.Context, o api.AllocOptions) (api.Mlog, error) {
	const op = "mlog alloc"
	blocks, err := logBlocks(op, o)
	if err != nil {
		return nil, err
	}
	obj, err := p.alloc(ctx, op, layout.NewObjectID(layout.KindMlog, 0), o, blocks, true)
	if err != nil {
		return nil, err
	}
	return &Mlog{handle{obj: obj}}, nil
}

// maxLogCapacity bounds a log, in bytes: its extent's blocks must be countable.
const maxLogCapacity = 1 << 40

// logBlocks returns how many blocks a log of the capacity asked for takes.
func logBlocks(op string, o api.AllocOptions) (uint32, error) {
	if o.Capacity <= 0 || o.Capacity > maxLogCapacity {
		return 0, api.Errorf(api.EINVAL, op, "capacity %d: want 1 to %d bytes", o.Capacity, int64(maxLogCapacity))
	}
	return mlog.BlocksFor(o.Capacity), nil
}

// Mlog implements [api.Pool].
func (p *Pool) Mlog(ctx context.Context, id layout.ObjectID) (api.Mlog, error) {
	const op = "mlog find"
	if err := p.alive(op); err != nil {
		return nil, err
	}
	if id.Kind() != layout.KindMlog || !id.Valid() {
		return nil, &api.Error{Code: api.EINVAL, Op: op, Object: id, Detail: "not an mlog's id"}
	}
	o, err := p.find(ctx, op, id)
	if err != nil {
		return nil, err
	}
	return &Mlog{handle{obj: o}}, nil
}

// Get implements [api.Object].
func (m *Mlog) Get(ctx context.Context) (api.Object, error) {
	o, err := m.live(ctx, "mlog get")
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
	o.log.seized++
	return nil
}

// +checklocks:o.mu
func (o *object) releaseLocked() {
	o.log.busy = false
	o.cond.Broadcast()
	o.dropUnusedLocked()
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
		if err := o.drive.present(op, o.id); err != nil {
			return nil, err
		}
		c := o.logConfig(&o.desc)
		o.mu.Unlock()
		l, err := mlog.Open(ctx, c)
		err = o.pool.corrupted(ioError(op, o.drive.dev, err))
		o.mu.Lock()
		if err != nil {
			return nil, err
		}
		o.log.log = l
	}
	o.log.opens++
	o.log.append = o.log.append || forAppend
	return o.log.log, nil
}

// closeLog ends an open; the last one closes the log. It is closed whatever
// happens: if the context ends before, that goes on, and nobody can open, erase
// or delete the log until it is done.
func (o *object) closeLog(ctx context.Context, op string, forAppend bool) error {
	left, err := o.drive.background.run(ctx, "log close", func() error { return o.closeOpen(op, forAppend) }, nil)
	if left {
		return &api.Error{
			Code: api.EUNKNOWN, Op: op, Object: o.id, Err: err,
			Detail: "the log is being closed; whether its last records are durable is unknown",
		}
	}
	return ioError(op, o.drive.dev, err)
}

func (o *object) closeOpen(op string, forAppend bool) error {
	ctx := context.Background() // what it waits for is bounded by the drive
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.seize(ctx, op); err != nil {
		return err
	}
	defer o.releaseLocked()
	l, last := o.log.log, o.log.opens == 1
	o.mu.Unlock()
	err := o.endLog(ctx, op, l, forAppend, last)
	o.mu.Lock()
	o.log.append = o.log.append && !forAppend
	o.log.opens--
	if last {
		o.log.log = nil
	}
	return err
}

// endLog syncs a log that was open for append, and closes it if that was the
// last open. In a pool that is read-only nothing is written any more: somebody
// else may have the drive.
func (o *object) endLog(ctx context.Context, op string, l *mlog.Log, sync, last bool) error {
	if refused := o.pool.writable(op); refused != nil {
		appended, _ := l.Len()
		durable, _ := l.Durable()
		if !sync || appended == durable {
			refused = nil
		}
		if last {
			refused = errors.Join(refused, l.Abandon(ctx))
		}
		return refused
	}
	switch {
	case last:
		return l.Close(ctx)
	case sync:
		return l.Sync(ctx)
	}
	return nil
}

// formatNew makes the empty log of an uncommitted object durable. If the context
// ends before, that goes on: the object is seized, and its extent pinned, until
// it is done.
func (o *object) formatNew(ctx context.Context, op string, desc *layout.Object) error {
	if err := o.seizeLog(ctx, op); err != nil {
		return err
	}
	if !o.use.Pin() {
		o.releaseLog()
		return noSuch(op, o.id)
	}
	c := o.logConfig(desc)
	_, err := o.drive.background.run(ctx, "log format", func() error {
		defer o.releaseLog()
		defer o.use.Unpin()
		return mlog.Format(context.Background(), c, 0)
	}, nil)
	return ioError(op, o.drive.dev, err)
}

// seizeLog is seize for those who do not hold o.mu.
func (o *object) seizeLog(ctx context.Context, op string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seize(ctx, op)
}

func (o *object) releaseLog() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.releaseLocked()
}

// OpenAppend implements [api.Mlog].
func (m *Mlog) OpenAppend(ctx context.Context) (api.Appender, error) { return m.OpenAppendAs(ctx, 0) }

// OpenAppendAs is OpenAppend for one of several processes, by any number of its own but
// 0: only readers that [Mlog.OpenReadAs] gave it see what it has not synced.
func (m *Mlog) OpenAppendAs(ctx context.Context, process uint64) (api.Appender, error) {
	const op = "mlog open"
	l, o, err := m.open(ctx, op, true)
	if err != nil {
		return nil, err
	}
	l.AppendAs(process)
	return &appender{obj: o, log: l}, nil
}

// OpenRead implements [api.Mlog]. The reader sees unsynced records too.
func (m *Mlog) OpenRead(ctx context.Context) (api.LogReader, error) {
	return m.openRead(ctx, mlog.ReaderOptions{Unsynced: true})
}

// OpenReadAs is OpenRead for one of several processes, by the number of OpenAppendAs:
// the reader sees synced records and, while that process appends, all.
func (m *Mlog) OpenReadAs(ctx context.Context, process uint64) (api.LogReader, error) {
	return m.openRead(ctx, mlog.ReaderOptions{Process: process})
}

func (m *Mlog) openRead(ctx context.Context, ro mlog.ReaderOptions) (api.LogReader, error) {
	l, o, err := m.open(ctx, "mlog open", false)
	if err != nil {
		return nil, err
	}
	return &logReader{Reader: l.NewReader(ro), obj: o}, nil
}

func (m *Mlog) open(ctx context.Context, op string, forAppend bool) (*mlog.Log, *object, error) {
	o, err := m.live(ctx, op)
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
	o, err := m.live(ctx, op)
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
// has himself. Nobody opens the log before the outcome is known.
func (o *object) erase(ctx context.Context, op string, minGeneration uint64, opens int) error {
	if err := o.pool.writable(op); err != nil {
		return err
	}
	if err := o.seizeLog(ctx, op); err != nil {
		return err
	}
	now, err := o.erasable(op, opens)
	if err == nil {
		// Again: an erase before whose outcome is unknown has failed the pool.
		err = o.pool.writable(op)
	}
	if err != nil {
		o.releaseLog()
		return err
	}
	next := now
	next.Generation = max(now.Generation+1, minGeneration)
	left, err := o.drive.background.run(ctx, "log format", func() error {
		return mlog.Format(context.Background(), o.logConfig(&next), now.Generation)
	}, o.releaseLog)
	if left {
		return api.ContextError(op, err)
	}
	if err != nil {
		o.releaseLog()
		return ioError(op, o.drive.dev, err)
	}
	t := &txn{op: op, ids: []layout.ObjectID{o.id}, settled: o.releaseLog, apply: func() {
		o.mu.Lock()
		o.desc.Generation = next.Generation
		o.mu.Unlock()
		o.pool.table.Update(o.id, func(e *layout.Object) { e.Generation = next.Generation })
	}}
	t.rec.Erase(next.ID, next.Birth, next.Generation)
	return o.pool.meta.commit(ctx, t)
}

// erasable says why a seized log cannot be erased.
func (o *object) erasable(op string, opens int) (layout.Object, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.state != committed:
		return o.desc, &api.Error{Code: api.ESTATE, Op: op, Object: o.id, Detail: "the log is not committed"}
	case o.log.opens > opens:
		return o.desc, &api.Error{Code: api.EBUSY, Op: op, Object: o.id, Detail: "the log is open"}
	case o.desc.Generation == 1<<64-1:
		return o.desc, &api.Error{Code: api.ESTATE, Op: op, Object: o.id, Detail: "the log has had all its generations"}
	}
	return o.desc, nil
}
