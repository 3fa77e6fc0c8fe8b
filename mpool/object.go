package mpool

import (
	"context"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
	"github.com/mpool-go/mpool/sched"
	"github.com/mpool-go/mpool/space"
)

// objectState is where an object in use is in its life.
type objectState uint8

const (
	uncommitted objectState = iota
	committing              // its commit is under way
	committed
	deleting // its delete is under way
	gone     // aborted or deleted
)

// object is an object that somebody uses. All handles on it share it.
type object struct {
	pool  *Pool
	drive *drive
	id    layout.ObjectID
	run   space.Run // its zones; of a committed mblock those it kept

	use       layout.Use  // references under Pool.usesMu; pins atomic
	pinFunc   func() bool // pin and unpin, as values
	unpinFunc func()

	mu   sched.Mutex
	cond sched.Cond // log.busy has ended
	// +checklocks:mu
	state objectState
	// +checklocks:mu
	desc layout.Object
	// +checklocks:mu
	log openLog // mlog

	told    atomic.Bool // that it is poisoned
	lingers atomic.Bool // it has no references, and had I/O under way

	writer *mblock.Writer // mblock that is or was uncommitted
	reader *mblock.Reader // mblock that is committed; set before state is
}

func (p *Pool) newObject(d *drive, desc layout.Object, st objectState) *object {
	o := &object{pool: p, drive: d, id: desc.ID, run: d.run(desc.Extent), desc: desc, state: st}
	o.pinFunc, o.unpinFunc = o.pin, o.unpin
	o.mu.Init(p.sched, sched.RankObject)
	o.cond.Init(p.sched, &o.mu)
	cfg := o.mblockConfig(desc)
	switch {
	case desc.ID.Kind() != layout.KindMblock, d.dev == nil:
	case st < committed:
		o.writer = mblock.NewWriter(cfg)
	default:
		o.reader = mblock.NewReader(cfg, desc, p.sums, p.props.Load().verify)
	}
	return o
}

func (o *object) mblockConfig(desc layout.Object) mblock.Config {
	return mblock.Config{
		Sched: o.pool.sched, Drive: o.drive.dev, Extent: desc.Extent, ID: desc.ID, Birth: desc.Birth,
		Capacity: int64(desc.Capacity), Pin: o.pinFunc, Unpin: o.unpinFunc,
	}
}

// snapshot returns the object's state and description.
func (o *object) snapshot() (objectState, layout.Object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state, o.desc
}

// find returns an object with one more reference: one in use, or a committed
// one that nobody uses yet. The table is asked under usesMu, so that a delete,
// which holds the last reference until it is applied, is either seen or over.
func (p *Pool) find(ctx context.Context, op string, id layout.ObjectID) (*object, error) {
	if err := timely(ctx, op); err != nil {
		return nil, err
	}
	p.usesMu.Lock()
	defer p.usesMu.Unlock()
	if err := p.alive(op); err != nil {
		return nil, err
	}
	o := p.uses[id]
	if o == nil {
		desc, ok := p.table.Lookup(id)
		if !ok {
			return nil, noSuch(op, id)
		}
		o = p.newObject(p.byslot[desc.Extent.Drive], desc, committed)
		p.uses[id] = o
	}
	if err := refLocked(op, o); err != nil {
		return nil, err
	}
	return o, nil
}

// ref takes another reference on an object that the caller has one on.
func (o *object) ref(op string) error {
	o.pool.usesMu.Lock()
	defer o.pool.usesMu.Unlock()
	return refLocked(op, o)
}

// refLocked is ref for who has the pool's usesMu.
func refLocked(op string, o *object) error {
	if o.use.Deleting() {
		return leaving(op, o)
	}
	if !o.use.Ref() {
		return &api.Error{Code: api.EOVERFLOW, Op: op, Object: o.id, Detail: "the object has as many references as can be counted"}
	}
	return nil
}

// unref gives a reference back. A committed object that nobody uses any more is
// in the table only; an uncommitted one stays until it is aborted.
func (o *object) unref() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pool.usesMu.Lock()
	defer o.pool.usesMu.Unlock()
	o.use.Unref()
	o.forgetLocked()
}

// dropUnusedLocked is for whoever ends the last use that is no reference.
//
// +checklocks:o.mu
func (o *object) dropUnusedLocked() {
	o.pool.usesMu.Lock()
	defer o.pool.usesMu.Unlock()
	o.forgetLocked()
}

// forgetLocked leaves a committed object that nobody uses to the table.
//
// +checklocks:o.mu
// +checklocks:o.pool.usesMu
func (o *object) forgetLocked() {
	o.lingers.Store(false)
	if o.use.Refs() == 0 && o.state == committed && o.log.opens == 0 && !o.log.busy && !o.pinnedLocked() {
		delete(o.pool.uses, o.id)
	}
}

func noSuch(op string, id layout.ObjectID) error {
	return &api.Error{Code: api.ENOENT, Op: op, Object: id, Detail: "no such object"}
}

// leaving is noSuch of an object whose delete is under way: it may fail, or a crash
// undo it, which matters to who asks what became of a delete of its own. The caller has the
// pool's usesMu.
func leaving(op string, o *object) error {
	return &api.Error{
		Code: api.ENOENT, Op: op, Object: o.id, Detail: "the object is being deleted",
		Holders: []api.Holder{{References: o.use.Refs()}},
	}
}

// info describes an object in use.
func (o *object) info() api.ObjectInfo {
	o.mu.Lock()
	st, desc := o.state, o.desc
	var records uint64
	var length int64
	if o.log.log != nil {
		records, length = o.log.log.Durable()
	}
	o.mu.Unlock()
	p := o.pool
	p.usesMu.Lock()
	refs := o.use.Refs()
	p.usesMu.Unlock()
	i := p.describe(&desc)
	i.Refs = refs
	i.Records = records
	switch {
	case desc.ID.Kind() == layout.KindMlog:
		i.Length = length
	case o.writer != nil && st < committed:
		i.Length = o.writer.Len()
	}
	switch st {
	case uncommitted, committing:
		i.State = api.StateUncommitted
	case deleting, gone:
		i.State = api.StateDeleting
	case committed:
		i.State = api.StateCommitted
	}
	return i
}

// describe describes a committed object.
func (p *Pool) describe(o *layout.Object) api.ObjectInfo {
	i := api.ObjectInfo{
		ID: o.ID, Kind: o.ID.Kind(), State: api.StateCommitted, Length: int64(o.Written), Capacity: int64(o.Capacity),
		Used: o.Extent.Size(), Owner: o.Owner, Tag: o.Tag, Created: unixMilli(o.Created),
		Generation: o.Generation, Partner: o.Partner,
	}
	if d := p.byslot[o.Extent.Drive]; d != nil {
		i.Class = api.Class(d.entry.Class)
	}
	return i
}

// alloc makes an uncommitted object with one reference. The counter of its id is
// the one of id, or the next if that is 0. Without wait it is ErrWouldBlock if it would
// have to.
func (p *Pool) alloc(ctx context.Context, op string, id layout.ObjectID, o api.AllocOptions, blocks uint32, wait bool) (*object, error) {
	if err := p.allocatable(ctx, op, o); err != nil {
		return nil, err
	}
	d, runs, err := p.settle(ctx, op, id.Kind(), o, blocks, 1, wait)
	if err != nil {
		return nil, err
	}
	return p.adopt(ctx, op, id, uncommitted, o, d, runs[0], wait)
}

// settle is place for objects that their owner may hold: that is asked first.
func (p *Pool) settle(ctx context.Context, op string, kind layout.Kind, o api.AllocOptions, blocks uint32, n int, wait bool) (*drive, []space.Run, error) {
	asked, err := p.reserveHolding(op, kind, o, blocks, n)
	if err != nil {
		return nil, nil, err
	}
	d, runs, err := p.place(ctx, op, o, blocks, n, wait)
	if err != nil {
		p.holdings.release(o.Owner, asked)
		return nil, nil, err
	}
	if err := p.placed(op, kind, o, asked, d, runs); err != nil {
		for _, r := range runs {
			d.unplace(r)
		}
		return nil, nil, err
	}
	return d, runs, nil
}

// giveUp gives back what settle gave for one object.
func (p *Pool) giveUp(kind layout.Kind, owner uint32, d *drive, run space.Run) {
	p.holdings.release(owner, d.holdingOf(kind, run.Count))
	d.unplace(run)
}

// allocatable refuses allocations that cannot be.
func (p *Pool) allocatable(ctx context.Context, op string, o api.AllocOptions) error {
	if err := timely(ctx, op); err != nil {
		return err
	}
	if err := p.writable(op); err != nil {
		return err
	}
	if !p.names.ownerExists(o.Owner) {
		return api.Errorf(api.ENOENT, op, "no owner of index %d", o.Owner)
	}
	return nil
}

// adopt makes an object of a run of a drive's zones. If it fails, they are free, and
// its owner does not hold them.
func (p *Pool) adopt(ctx context.Context, op string, id layout.ObjectID, st objectState, o api.AllocOptions, d *drive, run space.Run, wait bool) (*object, error) {
	counter, birth, err := p.ids.take(ctx, op, id.Counter(), wait)
	if err != nil {
		p.giveUp(id.Kind(), o.Owner, d, run)
		return nil, err
	}
	desc := layout.Object{
		ID: layout.NewObjectID(id.Kind(), counter), Birth: birth, Extent: d.extent(run), Capacity: uint64(o.Capacity),
		Owner: o.Owner, Tag: o.Tag, Created: uint64(p.sched.Now().UnixMilli()),
	}
	if id.Kind() == layout.KindMlog {
		desc.Generation = 1
	}
	obj := p.newObject(d, desc, st)
	p.usesMu.Lock()
	defer p.usesMu.Unlock()
	err = p.alive(op)
	if _, lives := p.table.Lookup(desc.ID); err == nil && (lives || p.uses[desc.ID] != nil) {
		err = &api.Error{Code: api.EEXIST, Op: op, Object: desc.ID, Detail: "an object of this id lives"}
	}
	if err != nil {
		p.giveUp(id.Kind(), o.Owner, d, run)
		return nil, err
	}
	if !obj.use.Ref() {
		panic("mpool: a new object refuses a reference")
	}
	p.uses[desc.ID] = obj
	return obj, nil
}
