package mpool

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
)

const (
	opMblockAlloc  = "mblock alloc"
	opMblockPut    = "mblock put"
	opMblockCommit = "mblock commit"
)

// newMblock stands for an mblock's next id.
const newMblock = layout.ObjectID(layout.KindMblock) << layout.CounterBits

// PutMblock implements [api.Pool].
func (p *Pool) PutMblock(ctx context.Context, o api.AllocOptions, data []byte) (api.Mblock, error) {
	if o.Capacity == 0 {
		o.Capacity = int64(len(data))
	}
	m, err := p.allocMblock(ctx, opMblockPut, newMblock, o, true)
	if err != nil {
		return nil, err
	}
	if len(data) > 0 {
		_, err = m.Write(ctx, data)
	}
	if err == nil {
		err = m.Commit(ctx)
	}
	if err == nil {
		return m, nil
	}
	// What was sent may come through; all else is as if it had not been. Neither
	// call waits.
	if api.CodeOf(err) == api.EUNKNOWN || m.Abort(context.Background()) != nil {
		_ = m.Put() //nolint:errcheck // fails only for a handle that has ended
	}
	return nil, err
}

// TryAllocMblock is [Pool.AllocMblock] for callers that must not wait:
// ErrWouldBlock, and nothing was allocated, if it would have to, for zones that
// are being freed or for a counter checkpoint.
func (p *Pool) TryAllocMblock(o api.AllocOptions) (*Mblock, error) {
	return p.allocMblock(context.Background(), opMblockAlloc, newMblock, o, false)
}

// BeginCommit is [Mblock.Commit] without waiting. done is called exactly once,
// when the mblock is committed or it is known that it may not be: by the task
// that writes the metadata log, or, if there is nothing to wait for (it is
// committed, its record is durable already, or the log has failed), by the
// caller before BeginCommit returns; with no lock held, and whatever becomes of
// the handle meanwhile. done must not block: all changes of the pool may wait
// meanwhile.
//
// Errors, after which done is not called and the mblock is uncommitted, but as
// after those of Commit it may be that no more can be written to it:
// ErrWouldBlock (writes are under way, or it takes a flush of its own: it is
// large or not on the metadata drive; or others are just now changing the pool),
// and those of Commit. done gets EUNKNOWN, or nil.
func (m *Mblock) BeginCommit(done func(error)) error {
	o, err := m.live(context.Background(), opMblockCommit)
	if err != nil {
		return err
	}
	if !o.pool.meta.sharesFlush(o) {
		return ErrWouldBlock
	}
	ok, err := o.startCommit(opMblockCommit)
	if err != nil {
		return err
	}
	if !ok {
		done(nil)
		return nil
	}
	if err = o.beginCommit(done); err != nil {
		o.cancelCommit()
	}
	return err
}

// begunCommit is all that a commit without waiting needs.
type begunCommit struct {
	unflushedCommit
	done func(error)
}

// beginCommit sends the record of a small mblock of the metadata drive that is
// committing. After an error nothing was sent.
func (o *object) beginCommit(done func(error)) error {
	p := o.pool
	s, ready, err := o.writer.SealReady()
	if !ready {
		return ErrWouldBlock
	}
	c := &begunCommit{done: done}
	if c.desc, err = o.sealed(opMblockCommit, &s, err); err != nil {
		return err
	}
	c.one[0] = o.id
	c.txn = txn{op: opMblockCommit, ends: deleteCost(), ids: c.one[:], live: createBytes(&c.desc), unflushed: s.Unflushed, ticket: s.Ticket}
	c.apply = func() { o.publish(c.desc) }
	if !s.Unflushed { // it is empty, or was flushed when it was sealed before
		c.rec.Create(&c.desc)
		return p.meta.begin(&c.txn, c.ended)
	}
	c.rec.CreateUnflushed(&c.desc)
	err = ErrWouldBlock // a flush of its own, or a wait, will say why
	if p.meta.unflushed.Add(1) <= maxUnflushed && s.Ticket == o.drive.dev.Ticket() {
		err = p.meta.begin(&c.txn, c.ended)
	}
	if err != nil {
		p.meta.unflushed.Add(-1)
	}
	return err
}

// ended is called by the log when the record is durable, and applied, or may not
// be.
func (c *begunCommit) ended(err error) {
	if err != nil {
		err = unknownOutcome(c.op, err)
	}
	c.done(err)
}

// begin is commit without waiting: done is called when the transaction is durable
// and applied, with nil, or when it may not be. After an error nothing was sent.
func (m *meta) begin(t *txn, done func(error)) error {
	if !m.turn.tryEnter() {
		return ErrWouldBlock
	}
	fits, _, err := m.room(t)
	if err == nil && !fits {
		err = ErrWouldBlock
	}
	if err == nil {
		err = m.sendNow(t)
	}
	m.turn.leave()
	if err != nil {
		return err
	}
	m.maybeCompact()
	m.pool.fence.touch()
	// The transaction is in the list of those to be applied: the log tells of
	// what is durable in that order, too.
	if err = m.mdc.BeginSyncTo(t.seq+1, done); err != nil {
		done(err)
	}
	return nil
}

// sendNow is send without waiting.
func (m *meta) sendNow(t *txn) error {
	seq, err := m.appendNow(t)
	switch {
	case err == nil:
		m.sent(t, seq)
		return nil
	case err == ErrWouldBlock, errors.Is(err, bdev.ErrFlushFailed) && t.unflushed: //nolint:errorlint // the log returns it bare
		return ErrWouldBlock
	}
	return m.unsent(t, err)
}

func (m *meta) appendNow(t *txn) (uint64, error) {
	if t.unflushed {
		return m.mdc.BeginAppendData(t.ticket, t.rec.Bytes())
	}
	return m.mdc.BeginAppend(nil, t.rec.Bytes())
}

// tryEnter enters if nobody is in.
func (g *gate) tryEnter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.taken {
		return false
	}
	g.taken = true
	return true
}
