package mpool

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
	"github.com/mpool-go/mpool/sched"
)

// txn is one transaction of the metadata. It is built by one task, sent, and
// applied to memory by the log's writer when it is durable.
type txn struct {
	op    string // for errors, such as "mblock commit"
	rec   omf.Record
	ids   []layout.ObjectID // objects it changes
	frees bool              // may use the room that is kept for deletes and unset roots
	live  int64             // change of the compacted size, in bytes
	ends  int64             // change of what is kept for those, in bytes
	apply func()            // under meta.applyMu; must not fail or block
	// settled, if set, is called once, by any task, when no application can
	// follow any more: it is applied, or was not sent, or the pool has failed.
	settled func()

	// unflushed says that the record tells of data which was written under the
	// ticket and becomes durable with it.
	unflushed bool
	ticket    bdev.Ticket

	seq uint64 // its record's number, once sent
}

func (t *txn) settle() {
	if t.settled != nil {
		t.settled()
	}
}

// meta is the pool's metadata: one MDC, the transactions under way in it, and
// the room in it.
type meta struct {
	pool  *Pool
	sched *sched.Sched
	mdc   *mlog.MDC

	// turn is held across an append: the order of the log is the order of
	// transactions.
	turn gate
	// failed is why the pool is read-only, or nil.
	failed atomic.Pointer[error]
	// stop ends when the pool is deactivated, and with it the wait of a
	// compaction that is not admitted.
	stop    context.Context
	stopNow context.CancelFunc

	mu   sched.Mutex
	cond sched.Cond // a compaction has ended
	// +checklocks:mu
	live int64 // bytes of a compacted log
	// +checklocks:mu
	ends int64 // bytes that the deletes of all objects and roots take
	// +checklocks:mu
	compacting bool
	// +checklocks:mu
	closing bool
	// +checklocks:mu
	compactions uint64

	applyMu sched.Mutex
	// +checklocks:applyMu
	pending []*txn // sent and not applied, in the order of the log
	// +checklocks:applyMu
	durable uint64 // records with lower numbers are durable

	unflushed atomic.Int64 // transactions so called, from before they are sent until they are applied
}

func newMeta(p *Pool) *meta {
	m := &meta{pool: p, sched: p.sched}
	m.turn.init(p.sched, sched.RankMeta)
	m.mu.Init(p.sched, sched.RankMeta)
	m.cond.Init(p.sched, &m.mu)
	m.applyMu.Init(p.sched, sched.RankApply)
	m.stop, m.stopNow = p.sched.WithCancel(context.Background())
	return m
}

// recordCost bounds what a record of n bytes takes of the log, fragment headers
// and padding included.
func recordCost(n int) int64 { return int64(n) + int64(n)/256 + 32 }

// deleteCost and unsetCost are what the end of an object and of a root takes of the log.
func deleteCost() int64           { return recordCost(omf.DeleteBytes) }
func unsetCost(name string) int64 { return recordCost(int(nameBytes(name))) }

// createBytes is what an object takes of a compacted log.
func createBytes(o *layout.Object) int64 { return omf.CreateBytes(len(o.Sums)) + 4 }

// takeTurn enters the turn with room for the record in the log: at once, or
// after a compaction, which it waits for outside.
func (m *meta) takeTurn(ctx context.Context, t *txn) error {
	for {
		if err := m.turn.enter(ctx, t.op); err != nil {
			return err
		}
		fits, compactions, err := m.room(t)
		if fits {
			return nil
		}
		m.turn.leave()
		if err == nil {
			err = m.compacted(ctx, t.op, compactions)
		}
		if err != nil {
			return err
		}
	}
}

// room says whether the record fits. If not, and without an error, a compaction
// is under way, before whose end there were so many.
func (m *meta) room(t *txn) (fits bool, compactions uint64, err error) {
	need := recordCost(t.rec.Len())
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		return false, 0, api.Errorf(api.EBADF, t.op, "the pool is being deactivated")
	}
	if err := m.failure(); err != nil {
		return false, 0, readOnly(t.op, err)
	}
	used, capacity := m.mdc.Usage()
	kept := int64(layout.BlockSize) // the end mark of a compaction, and the last page's rest
	ends := m.ends + max(t.ends, 0)
	if !t.frees {
		kept += ends
	}
	if used+need+kept <= capacity {
		return true, 0, nil
	}
	// A compaction helps only if what lives, and the deletes and unset roots that
	// it needs room for, leave space; it is full well before that, because appends go on
	// while a compaction writes.
	if !t.frees && m.live+ends+need > fullShare(capacity) {
		return false, 0, &api.Error{
			Code: api.ENOSPC, Op: t.op, Want: need, Have: max(0, fullShare(capacity)-m.live-ends),
			Detail: "the pool's metadata is full; delete objects or unset roots",
		}
	}
	m.compactLocked()
	return false, m.compactions, nil
}

// compacted returns when there were more compactions than before.
func (m *meta) compacted(ctx context.Context, op string, before uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.compactions == before {
		if err := m.cond.Wait(ctx); err != nil {
			return api.ContextError(op, err)
		}
	}
	return nil
}

// fullShare is how much of the log live records and the room for their deletes
// may take.
func fullShare(capacity int64) int64 { return capacity / 10 * 6 }

// commit sends a transaction and returns when it is durable and applied. After
// an error that is not EUNKNOWN nothing was sent. EUNKNOWN with a context that
// ended says that it may still be applied.
func (m *meta) commit(ctx context.Context, t *txn) error {
	if err := m.takeTurn(ctx, t); err != nil {
		t.settle()
		return err
	}
	err := m.send(ctx, t)
	m.turn.leave()
	if err != nil {
		t.settle()
		return err
	}
	m.maybeCompact()
	m.pool.fence.touch()
	if err = m.mdc.SyncTo(ctx, t.seq+1); err == nil {
		t.settle()
		return nil
	}
	if t.settled != nil {
		m.pool.background.start("transaction", func() {
			_ = m.mdc.SyncTo(context.Background(), t.seq+1) //nolint:errcheck // nobody waits for the outcome, only for its end
			t.settle()
		})
	}
	return unknownOutcome(t.op, err)
}

func unknownOutcome(op string, err error) error {
	return &api.Error{Code: api.EUNKNOWN, Op: op, Err: err, Detail: "the change was sent and its outcome is unknown"}
}

// send appends the record and queues the transaction for its application. The
// caller holds the turn.
func (m *meta) send(ctx context.Context, t *txn) error {
	seq, err := m.append(ctx, t)
	if err != nil {
		if errors.Is(err, bdev.ErrFlushFailed) && t.unflushed {
			return errNotCovered
		}
		if ctx.Err() != nil {
			return api.ContextError(t.op, context.Cause(ctx))
		}
		return m.unsent(t, err)
	}
	m.sent(t, seq)
	return nil
}

// unsent turns the pool read-only, whose log took nothing.
func (m *meta) unsent(t *txn, err error) error {
	m.fail(err)
	return &api.Error{Code: api.EROFS, Op: t.op, Err: err, Detail: "the pool's metadata cannot be written"}
}

// sent queues a transaction that the log has taken for its application.
func (m *meta) sent(t *txn, seq uint64) {
	t.seq = seq
	m.mu.Lock()
	m.live += t.live
	m.ends += t.ends
	m.mu.Unlock()
	m.applyMu.Lock()
	m.pending = append(m.pending, t)
	m.applyReadyLocked() // the writer may have been faster
	m.applyMu.Unlock()
}

func (m *meta) append(ctx context.Context, t *txn) (uint64, error) {
	if t.unflushed {
		return m.mdc.AppendData(ctx, t.ticket, t.rec.Bytes())
	}
	return m.mdc.Append(ctx, t.rec.Bytes())
}

// onDurable is called by the log's writer: records below n are durable.
func (m *meta) onDurable(n uint64) {
	m.applyMu.Lock()
	m.durable = max(m.durable, n)
	m.applyReadyLocked()
	m.applyMu.Unlock()
}

// +checklocks:m.applyMu
func (m *meta) applyReadyLocked() {
	done := 0
	for _, t := range m.pending {
		if t.seq >= m.durable {
			break
		}
		t.apply()
		if t.unflushed {
			m.unflushed.Add(-1)
		}
		done++
	}
	if done > 0 {
		rest := copy(m.pending, m.pending[done:])
		clear(m.pending[rest:])
		m.pending = m.pending[:rest]
	}
}

// confirm has the log say that its last group was durable, unless transactions
// go on, of which the last is confirmed later. A crash then leaves nothing in
// doubt.
func (m *meta) confirm(goesOn *atomic.Bool) {
	if !goesOn.Load() && m.failure() == nil && !m.mdc.Confirm() {
		m.pool.fence.touch()
	}
}

// readOnly makes the error of a change that a failed pool refuses.
//
// The reason is told, not wrapped: its code, which may be EUNKNOWN, is not that
// of the refused call.
func readOnly(op string, why error) error {
	e := &api.Error{
		Code: api.EROFS, Op: op, Err: errors.New(why.Error()),
		Detail: "the pool is read-only since its metadata could not be written; deactivate and activate it",
	}
	switch {
	case errors.Is(why, api.ESTALE):
		e.Code, e.Detail = api.ESTALE, "the pool was activated elsewhere and is read-only here"
	case errors.Is(why, errIncomplete):
		e.Detail = "the pool was activated read-only"
	}
	return e
}

// fail turns the pool read-only.
func (m *meta) fail(err error) {
	if m.failed.CompareAndSwap(nil, &err) {
		d := m.pool.metaDrive()
		m.pool.opt.OnEvent(Event{Type: EventReadOnly, Device: d.path(), Err: err})
	}
}

// failure returns why the pool is read-only, or nil.
func (m *meta) failure() error {
	if err := m.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// close waits for what is under way and closes the log cleanly.
func (m *meta) close(ctx context.Context) error {
	m.mu.Lock()
	m.closing = true
	m.stopNow()
	for m.compacting {
		if err := m.cond.Wait(ctx); err != nil {
			m.mu.Unlock()
			return api.ContextError("pool deactivate", err)
		}
	}
	m.mu.Unlock()
	// Whoever found room before may be sending still.
	if err := m.turn.enter(ctx, "pool deactivate"); err != nil {
		return err
	}
	m.turn.leave()
	if m.failure() != nil {
		return m.mdc.Abandon()
	}
	return m.mdc.Close(ctx)
}
