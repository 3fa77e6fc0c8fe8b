package mpool

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
	"github.com/mpool-go/mpool/sched"
)

// txn is one transaction of the metadata. It is built by one task, sent, and
// applied to memory by the log's writer when it is durable.
type txn struct {
	op      string // for errors, such as "mblock commit"
	rec     omf.Record
	ids     []layout.ObjectID // objects it changes
	frees   bool              // may use the room that is kept for deletes
	live    int64             // change of the compacted size, in bytes
	objects int64             // change of the number of objects
	apply   func()            // under meta.applyMu; must not fail or block

	seq uint64 // its record's number, once sent
}

// meta is the pool's metadata: one MDC, the transactions under way in it, and
// the room in it.
type meta struct {
	pool  *Pool
	sched *sched.Sched
	mdc   *mlog.MDC

	mu   sched.Mutex // held across an append: the order of the log is the order of transactions
	cond sched.Cond  // a compaction has ended
	// +checklocks:mu
	live int64 // bytes of a compacted log
	// +checklocks:mu
	objects int64
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
	// +checklocks:applyMu
	failed error // the pool is read-only since
}

func newMeta(p *Pool) *meta {
	m := &meta{pool: p, sched: p.sched}
	m.mu.Init(p.sched, sched.RankMeta)
	m.cond.Init(p.sched, &m.mu)
	m.applyMu.Init(p.sched, sched.RankApply)
	return m
}

// recordCost bounds what a record of n bytes takes of the log, fragment headers
// and padding included.
func recordCost(n int) int64 { return int64(n) + int64(n)/256 + 32 }

// room returns nil when the record fits: at once, or after a compaction, which
// it then waits for.
//
// +checklocks:m.mu
func (m *meta) room(ctx context.Context, t *txn) error {
	need := recordCost(t.rec.Len())
	for {
		if m.closing {
			return api.Errorf(api.EBADF, t.op, "the pool is being deactivated")
		}
		if err := m.failure(); err != nil {
			return readOnly(t.op, err)
		}
		used, capacity := m.mdc.Usage()
		kept := int64(layout.BlockSize) // the end mark of a compaction, and the last page's rest
		deletes := (m.objects + max(t.objects, 0)) * recordCost(omf.DeleteBytes)
		if !t.frees {
			kept += deletes
		}
		if used+need+kept <= capacity {
			return nil
		}
		// A compaction helps only if what lives, and the deletes it needs room
		// for, leave space; it is full well before that, because appends go on
		// while a compaction writes.
		if !t.frees && m.live+deletes+need > fullShare(capacity) {
			return &api.Error{
				Code: api.ENOSPC, Op: t.op, Want: need, Have: max(0, fullShare(capacity)-m.live-deletes),
				Detail: "the pool's metadata is full; delete objects",
			}
		}
		m.compactLocked()
		if err := m.cond.Wait(ctx); err != nil {
			return api.ContextError(t.op, err)
		}
	}
}

// fullShare is how much of the log live records and the room for their deletes
// may take.
func fullShare(capacity int64) int64 { return capacity / 10 * 6 }

// commit sends a transaction and returns when it is durable and applied. After
// an error that is not EUNKNOWN nothing was sent.
func (m *meta) commit(ctx context.Context, t *txn) error {
	m.mu.Lock()
	if err := m.send(ctx, t); err != nil {
		m.mu.Unlock()
		return err
	}
	m.maybeCompactLocked()
	m.mu.Unlock()
	m.pool.fence.touch()
	if err := m.mdc.SyncTo(ctx, t.seq+1); err != nil {
		return &api.Error{
			Code: api.EUNKNOWN, Op: t.op, Err: err,
			Detail: "the change was sent and its outcome is unknown",
		}
	}
	return nil
}

// send appends the record and queues the transaction for its application.
//
// +checklocks:m.mu
func (m *meta) send(ctx context.Context, t *txn) error {
	if err := m.room(ctx, t); err != nil {
		return err
	}
	seq, err := m.mdc.Append(ctx, t.rec.Bytes())
	if err != nil {
		if ctx.Err() != nil {
			return api.ContextError(t.op, context.Cause(ctx))
		}
		m.fail(err)
		return &api.Error{Code: api.EROFS, Op: t.op, Err: err, Detail: "the pool's metadata cannot be written"}
	}
	t.seq = seq
	m.live += t.live
	m.objects += t.objects
	m.applyMu.Lock()
	m.pending = append(m.pending, t)
	m.applyReadyLocked() // the writer may have been faster
	m.applyMu.Unlock()
	return nil
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
		done++
	}
	if done > 0 {
		rest := copy(m.pending, m.pending[done:])
		clear(m.pending[rest:])
		m.pending = m.pending[:rest]
	}
}

// readOnly makes the error of a change that a failed pool refuses.
func readOnly(op string, why error) error {
	if errors.Is(why, api.ESTALE) {
		return &api.Error{Code: api.ESTALE, Op: op, Err: why, Detail: "the pool was activated elsewhere and is read-only here"}
	}
	return &api.Error{
		Code: api.EROFS, Op: op, Err: why,
		Detail: "the pool is read-only since its metadata could not be written; deactivate and activate it",
	}
}

// fail turns the pool read-only.
func (m *meta) fail(err error) {
	m.applyMu.Lock()
	if m.failed == nil {
		m.failed = err
	}
	m.applyMu.Unlock()
}

// failure returns why the pool is read-only, or nil.
func (m *meta) failure() error {
	m.applyMu.Lock()
	defer m.applyMu.Unlock()
	return m.failed
}

// close waits for what is under way and closes the log cleanly.
func (m *meta) close(ctx context.Context) error {
	m.mu.Lock()
	m.closing = true
	for m.compacting {
		if err := m.cond.Wait(ctx); err != nil {
			m.closing = false
			m.mu.Unlock()
			return api.ContextError("pool deactivate", err)
		}
	}
	m.mu.Unlock()
	if m.failure() != nil {
		return errors.Join(m.mdc.Abandon())
	}
	return m.mdc.Close(ctx)
}
