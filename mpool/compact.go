package mpool

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/omf"
)

// Compaction of the metadata: the live state is written to the other log of the
// container while transactions go on, into both logs.
//
// What makes it right: everything sent before the compaction began is applied
// before the state is read, and the state of an object is read and written
// under meta.turn while no transaction on it is under way. So whatever the new
// log holds of an object is either the newest state, or is followed by the
// record that makes it so.

const (
	compactChunk   = 64      // objects written under one hold of meta.turn
	compactSyncAt  = 1 << 19 // bytes written between flushes of the new log
	compactUsed    = 60      // percent of the log used, from which on it is worth while ...
	compactGarbage = 20      // ... if at least so many percent of it are garbage
)

// maybeCompact starts a compaction when the log is well filled, much of it with
// what is no longer true.
func (m *meta) maybeCompact() {
	m.mu.Lock()
	defer m.mu.Unlock()
	used, capacity := m.mdc.Usage()
	if used > capacity/100*compactUsed && used-m.live > capacity/100*compactGarbage {
		m.compactLocked()
	}
}

// compactLocked starts a compaction unless one is under way. The task ends with
// it; close waits for that.
//
// +checklocks:m.mu
func (m *meta) compactLocked() {
	if m.compacting || m.closing {
		return
	}
	m.compacting = true
	m.sched.Go("metadata compaction", func() {
		done, err := m.pool.opt.admitted(m.stop, PriorityHigh)
		if err != nil {
			m.compactionEnded() // the pool is being deactivated
			return
		}
		err = m.compact(context.Background())
		done()
		if err != nil && !errors.Is(err, api.EFBIG) {
			// EFBIG: more came in meanwhile than the other log has room for;
			// the next attempt finds less garbage to carry.
			m.fail(err)
		}
		m.compactionEnded()
	})
}

func (m *meta) compactionEnded() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.compacting = false
	m.compactions++
	m.cond.Broadcast()
}

// compact writes the live state to the other log and switches to it.
func (m *meta) compact(ctx context.Context) (err error) {
	if err := m.mdc.CompactStart(ctx); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// The old log is still the active one; the error is what counts.
			_ = m.mdc.CompactAbort(ctx) //nolint:errcheck // see above
		}
	}()
	if err := m.mdc.Sync(ctx); err != nil { // what was sent before is applied now
		return err
	}
	if err := m.compactNames(ctx); err != nil {
		return err
	}
	if err := m.compactObjects(ctx); err != nil {
		return err
	}
	if err := m.mdc.CompactEnd(ctx); err != nil {
		return err
	}
	m.pool.fence.touch() // the new log's last group is to be confirmed, too
	return nil
}

// namesID stands for the roots, owners, properties and counters in txn.ids.
const namesID layout.ObjectID = 0

// compactNames writes properties, owners, roots and counters.
func (m *meta) compactNames(ctx context.Context) error {
	p := m.pool
	if err := m.turn.enter(ctx, "compaction"); err != nil {
		return err
	}
	defer m.turn.leave()
	if m.underWay()[namesID] {
		if err := m.mdc.Sync(ctx); err != nil {
			return err
		}
	}
	var r omf.Record
	p.props.Load().encode(&r)
	r.Counter(p.ids.limits())
	roots, owners := p.names.roots(), p.names.owners()
	for _, o := range owners {
		r.Owner(o.Index, o.Parent, o.Name)
		if err := m.appendChunk(ctx, &r); err != nil {
			return err
		}
	}
	for _, root := range roots {
		r.Root(root.Name, root.ID)
		if err := m.appendChunk(ctx, &r); err != nil {
			return err
		}
	}
	return m.mdc.CompactAppend(ctx, r.Bytes())
}

// appendChunk writes a record that has become large and empties it.
func (m *meta) appendChunk(ctx context.Context, r *omf.Record) error {
	if r.Count() < compactChunk {
		return nil
	}
	err := m.mdc.CompactAppend(ctx, r.Bytes())
	r.Reset()
	return err
}

// compactObjects writes a create for every object.
func (m *meta) compactObjects(ctx context.Context) error {
	var r omf.Record
	var cursor uint64
	var unsynced int64
	chunk := make([]layout.Object, 0, compactChunk)
	for busy := false; ; {
		next, again, err := m.compactChunk(ctx, &r, &chunk, cursor, busy)
		if err != nil {
			return err
		}
		if again {
			// Once more when they are applied; and if there are always others,
			// then none is let in meanwhile.
			if err := m.mdc.Sync(ctx); err != nil {
				return err
			}
			busy = true
			continue
		}
		busy = false
		if r.Count() > 0 {
			unsynced += recordCost(r.Len())
		}
		if unsynced >= compactSyncAt {
			// Outside the turn, so that no transaction waits for this write.
			if err := m.mdc.CompactSync(ctx); err != nil {
				return err
			}
			unsynced = 0
		}
		if next == 0 {
			return nil
		}
		cursor = next
	}
}

// compactChunk writes some objects from a cursor on and returns the next one;
// or again, if a transaction on one of them is under way. With settle it waits
// until none is, holding others up.
func (m *meta) compactChunk(ctx context.Context, r *omf.Record, chunk *[]layout.Object, cursor uint64, settle bool) (next uint64, again bool, err error) {
	if err := m.turn.enter(ctx, "compaction"); err != nil {
		return 0, false, err
	}
	defer m.turn.leave()
	if settle {
		if err := m.mdc.Sync(ctx); err != nil {
			return 0, false, err
		}
	}
	// What is under way is looked at before the objects are: a transaction that
	// is applied in between must not be missed.
	busy := m.underWay()
	*chunk = (*chunk)[:0]
	next = m.pool.table.Scan(cursor, compactChunk, func(o layout.Object) { *chunk = append(*chunk, o) })
	r.Reset()
	for i := range *chunk {
		o := &(*chunk)[i]
		if busy[o.ID] {
			return 0, true, nil
		}
		r.Create(o)
	}
	if r.Count() == 0 {
		return next, false, nil
	}
	return next, false, m.mdc.CompactAppend(ctx, r.Bytes())
}

// underWay returns the objects that transactions change which are sent and not
// applied.
func (m *meta) underWay() map[layout.ObjectID]bool {
	m.applyMu.Lock()
	defer m.applyMu.Unlock()
	if len(m.pending) == 0 {
		return nil
	}
	ids := make(map[layout.ObjectID]bool)
	for _, t := range m.pending {
		for _, id := range t.ids {
			ids[id] = true
		}
	}
	return ids
}
