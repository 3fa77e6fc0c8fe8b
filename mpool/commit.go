package mpool

import (
	"context"
	"errors"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
	"github.com/mpool-go/mpool/space"
)

func unixMilli(ms uint64) time.Time { return time.UnixMilli(int64(ms)).UTC() }

// maxPrepare bounds how many objects of one commit are made durable at once.
const maxPrepare = 32

// startCommit moves an object from uncommitted to committing. It returns false
// without an error when it is committed already.
func (o *object) startCommit(op string) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch o.state {
	case uncommitted:
		o.state = committing
		return true, nil
	case committed:
		return false, nil
	case committing:
		return false, &api.Error{Code: api.ESTATE, Op: op, Object: o.id, Detail: "another commit of the object is under way"}
	case deleting, gone:
	}
	return false, noSuch(op, o.id)
}

// cancelCommit makes the object uncommitted again: its commit was not sent.
func (o *object) cancelCommit() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state == committing {
		o.state = uncommitted
	}
}

// prepare makes the object's bytes durable and completes its description.
func (o *object) prepare(ctx context.Context, op string) (layout.Object, error) {
	if o.id.Kind() == layout.KindMlog {
		_, desc := o.snapshot()
		return desc, o.formatNew(ctx, op, &desc)
	}
	s, err := o.writer.Seal(ctx)
	return o.sealed(op, &s, err)
}

// sealed completes the description of an mblock.
func (o *object) sealed(op string, s *mblock.Sealed, err error) (layout.Object, error) {
	_, desc := o.snapshot()
	if err != nil {
		o.poisonedBy(err)
		return desc, ioError(op, o.drive.dev, err)
	}
	desc.Written = uint64(s.Written)
	desc.Sums = s.Sums
	desc.Extent.Blocks = o.drive.geo.zonesFor(s.UsedBlocks) * o.drive.geo.zoneBlocks()
	return desc, nil
}

// publish makes a durable object visible, and frees the zones that it did not
// use. It runs as part of its transaction's application.
func (o *object) publish(desc layout.Object) {
	p, d := o.pool, o.drive
	keep := d.run(desc.Extent)
	rest := space.Run{Start: keep.Start + keep.Count, Count: o.run.Count - keep.Count}
	d.zones.Commit(keep)
	p.holdings.commit(desc.Owner, d.holdingOf(desc.ID.Kind(), o.run.Count), d.holdingOf(desc.ID.Kind(), keep.Count))
	if rest.Count > 0 {
		d.zones.Drain(rest, space.Uncommitted)
		d.drain.add(rest)
	}
	p.table.Insert(desc)
	o.mu.Lock()
	defer o.mu.Unlock()
	if desc.ID.Kind() == layout.KindMblock {
		o.reader = mblock.NewReader(o.mblockConfig(desc), desc, p.sums, p.props.Load().verify)
	}
	o.run = keep
	o.desc = desc
	o.state = committed
	// Whoever gave up waiting for the commit may have gone.
	o.dropUnusedLocked()
}

// commit commits objects and changes roots in one transaction. Objects that are
// committed already are left out, also of the caller's slice.
func (p *Pool) commit(ctx context.Context, op string, objects []*object, roots []api.Root) error {
	if err := p.alive(op); err != nil {
		return err
	}
	started := objects[:0]
	cancel := func() {
		for _, o := range started {
			o.cancelCommit()
		}
	}
	for _, o := range objects {
		ok, err := o.startCommit(op)
		if err != nil {
			cancel()
			return err
		}
		if ok {
			started = append(started, o)
		}
	}
	if len(started) == 0 && len(roots) == 0 {
		return nil
	}
	err := p.commitStarted(ctx, op, started, roots)
	if err != nil && api.CodeOf(err) != api.EUNKNOWN {
		cancel()
	}
	return err
}

// commitStarted commits objects that are committing.
func (p *Pool) commitStarted(ctx context.Context, op string, objects []*object, roots []api.Root) error {
	if len(objects) == 1 && len(roots) == 0 && p.meta.sharesFlush(objects[0]) {
		err := p.commitUnflushed(ctx, op, objects[0])
		if !errors.Is(err, errNotCovered) {
			return err
		}
	}
	descs, err := p.prepareAll(ctx, op, objects)
	if err != nil {
		return err
	}
	return p.commitPrepared(ctx, op, objects, descs, roots)
}

// commitPrepared sends the transaction for objects whose bytes are durable.
func (p *Pool) commitPrepared(ctx context.Context, op string, objects []*object, descs []layout.Object, roots []api.Root) error {
	t := &txn{op: op, ends: int64(len(objects)) * deleteCost()}
	committing := make(map[layout.ObjectID]bool, len(objects))
	for i := range descs {
		t.rec.Create(&descs[i])
		t.ids = append(t.ids, descs[i].ID)
		t.live += createBytes(&descs[i])
		committing[descs[i].ID] = true
	}
	if len(roots) > 0 {
		if err := p.admin.enter(ctx, op); err != nil {
			return err
		}
		t.settled = p.admin.leave
		if err := p.checkRoots(op, roots, committing); err != nil {
			t.settle()
			return err
		}
		roots = append([]api.Root(nil), roots...)
		p.encodeRoots(t, roots)
		t.ids = append(t.ids, namesID)
	}
	t.apply = func() {
		for i, o := range objects {
			o.publish(descs[i])
		}
		p.names.setRoots(roots)
	}
	return p.meta.commit(ctx, t)
}

// prepareAll prepares objects side by side, so that they share flushes.
func (p *Pool) prepareAll(ctx context.Context, op string, objects []*object) ([]layout.Object, error) {
	descs := make([]layout.Object, len(objects))
	if len(objects) == 1 {
		var err error
		descs[0], err = objects[0].prepare(ctx, op)
		return descs, err
	}
	var j joiner
	j.init(p.sched)
	tasks := min(len(objects), maxPrepare)
	for first := range tasks {
		j.start(p.sched, "prepare commit", func() error {
			for i := first; i < len(objects); i += tasks {
				var err error
				if descs[i], err = objects[i].prepare(ctx, op); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return descs, j.wait()
}

// CommitMany implements [api.Pool].
func (p *Pool) CommitMany(ctx context.Context, objects []api.Object, roots []api.Root) error {
	const op = "commit many"
	if len(objects) > api.MaxCommitMany || len(roots) > api.MaxRoots {
		return api.Errorf(api.EINVAL, op, "%d objects and %d roots: at most %d and %d",
			len(objects), len(roots), api.MaxCommitMany, api.MaxRoots)
	}
	if err := usersRoots(op, roots); err != nil {
		return err
	}
	list := make([]*object, 0, len(objects))
	seen := make(map[layout.ObjectID]bool, len(objects))
	for _, x := range objects {
		h, ok := x.(interface{ base() *handle })
		if !ok || h.base().obj.pool != p {
			return api.Errorf(api.EBADF, op, "object %v is not a handle of this pool", x.ID())
		}
		o, err := h.base().live(ctx, op)
		if err != nil {
			return err
		}
		if seen[o.id] {
			return &api.Error{Code: api.EINVAL, Op: op, Object: o.id, Detail: "the object is named twice"}
		}
		seen[o.id] = true
		list = append(list, o)
	}
	return p.commit(ctx, op, list, roots)
}

// abort discards an uncommitted object whose only reference is the caller's.
func (o *object) abort(op string) error {
	p := o.pool
	o.mu.Lock()
	st := o.state
	o.mu.Unlock()
	switch st {
	case committed, deleting:
		return &api.Error{Code: api.ESTATE, Op: op, Object: o.id, Detail: "the object is committed; delete it"}
	case committing:
		return &api.Error{Code: api.ESTATE, Op: op, Object: o.id, Detail: "a commit of the object is under way"}
	case gone:
		return noSuch(op, o.id)
	case uncommitted:
	}
	if err := o.startDelete(op); err != nil {
		return err
	}
	o.mu.Lock()
	if o.state != uncommitted { // a commit came between
		o.mu.Unlock()
		o.cancelDelete()
		return &api.Error{Code: api.ESTATE, Op: op, Object: o.id, Detail: "a commit of the object is under way"}
	}
	o.state = gone
	owner := o.desc.Owner
	o.mu.Unlock()
	p.usesMu.Lock()
	delete(p.uses, o.id)
	p.usesMu.Unlock()
	p.holdings.release(owner, o.drive.holdingOf(o.id.Kind(), o.run.Count))
	o.freeWhenIdle(space.Uncommitted)
	return nil
}

// startDelete stops new references if the caller's is the only one.
func (o *object) startDelete(op string) error {
	p := o.pool
	p.usesMu.Lock()
	defer p.usesMu.Unlock()
	if o.use.StartDelete() {
		return nil
	}
	if o.use.Deleting() {
		return leaving(op, o)
	}
	return &api.Error{
		Code: api.EBUSY, Op: op, Object: o.id, Detail: "others use the object",
		Holders: []api.Holder{{References: o.use.Refs()}},
	}
}

func (o *object) cancelDelete() {
	o.pool.usesMu.Lock()
	o.use.CancelDelete()
	o.pool.usesMu.Unlock()
}

// freeWhenIdle lets the zones go when no I/O touches them any more.
func (o *object) freeWhenIdle(from space.State) {
	d, run := o.drive, o.run
	d.zones.Drain(run, from)
	o.use.Retire(func() {
		// The last pin may end where nothing may block.
		o.pool.sched.Go("zone free", func() { d.drain.add(run) })
	})
}

// remove deletes committed objects in one transaction; the caller holds one
// reference on each, which end if it succeeds.
func (p *Pool) remove(ctx context.Context, op string, objects ...*object) error {
	if err := p.alive(op); err != nil {
		return err
	}
	var started []*object
	cancel := func() {
		for _, o := range started {
			o.cancelRemove()
		}
	}
	t := &txn{op: op, frees: true, ends: -int64(len(objects)) * deleteCost()}
	for _, o := range objects {
		desc, err := o.startRemove(op)
		if err != nil {
			cancel()
			return err
		}
		started = append(started, o)
		t.rec.Delete(desc.ID, desc.Birth)
		t.ids = append(t.ids, desc.ID)
		t.live -= createBytes(&desc)
	}
	t.apply = func() {
		for _, o := range objects {
			o.removed()
		}
	}
	err := p.meta.commit(ctx, t)
	if err != nil && api.CodeOf(err) != api.EUNKNOWN {
		cancel()
	}
	return err
}

func (o *object) startRemove(op string) (layout.Object, error) {
	notCommitted := &api.Error{Code: api.ESTATE, Op: op, Object: o.id, Detail: "the object is not committed; abort it"}
	// First, as others who leave it to the caller change nothing about that.
	if st, _ := o.snapshot(); st < committed {
		return layout.Object{}, notCommitted
	}
	if err := o.startDelete(op); err != nil {
		return layout.Object{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state != committed || o.log.opens > 0 || o.log.busy {
		err := notCommitted
		if o.state == committed {
			err.Code, err.Detail = api.EBUSY, "the log is open"
		}
		o.pool.usesMu.Lock()
		o.use.CancelDelete()
		o.pool.usesMu.Unlock()
		return layout.Object{}, err
	}
	o.state = deleting
	return o.desc, nil
}

func (o *object) cancelRemove() {
	o.mu.Lock()
	o.state = committed
	o.mu.Unlock()
	o.cancelDelete()
}

// removed takes a durably deleted object out of memory.
func (o *object) removed() {
	p := o.pool
	o.mu.Lock()
	o.state = gone
	owner := o.desc.Owner
	o.mu.Unlock()
	p.table.Delete(o.id)
	p.usesMu.Lock()
	delete(p.uses, o.id)
	p.usesMu.Unlock()
	p.holdings.hold(owner, o.drive.holdingOf(o.id.Kind(), o.run.Count), -1)
	o.freeWhenIdle(space.Live)
}
