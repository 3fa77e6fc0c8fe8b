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
// under meta.mu while no transaction on it is under way. So whatever the new
// log holds of an object is either the newest state, or is followed by the
// record that makes it so.

const (
	compactChunk   = 64      // objects written under one hold of meta.mu
	compactSyncAt  = 1 << 19 // bytes written between flushes of the new log
	compactUsed    = 60      // percent of the log used, from which on it is worth while ...
	compactGarbage = 20      // ... if at least so many percent of it are garbage
)

// maybeCompactLocked starts a compaction when the log is well filled, much of
// it with what is no longer true.
//
// +checklocks:m.mu
func (m *meta) maybeCompactLocked() {
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
		err := m.compact(context.Background())
		if err != nil && !errors.Is(err, api.EFBIG) {
			// EFBIG: more came in meanwhile than the other log has room for;
			// the next attempt finds less garbage to carry.
			m.fail(err)
		}
		m.mu.Lock()
		m.compacting = false
		m.compactions++
		m.cond.Broadcast()
		m.mu.Unlock()
	})
}

// compact writes the live state to the other log and switches to it.
func (m *meta) compact(ctx context.Context) (err error) {
	if err := m.pool.opt.Admit(ctx); err != nil {
		return err
	}
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
	return m.mdc.CompactEnd(ctx)
}

// namesID stands for the roots, owners, properties and counters in txn.ids.
const namesID layout.ObjectID = 0

// compactNames writes properties, owners, roots and counters.
func (m *meta) compactNames(ctx context.Context) error {
	p := m.pool
	names := []layout.Object{{ID: namesID}}
	m.mu.Lock()
	for m.underWay(names) {
		m.mu.Unlock()
		if err := m.mdc.Sync(ctx); err != nil {
			return err
		}
		m.mu.Lock()
	}
	defer m.mu.Unlock()
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
	for {
		m.mu.Lock()
		chunk = chunk[:0]
		next := m.pool.table.Scan(cursor, compactChunk, func(o layout.Object) { chunk = append(chunk, o) })
		if m.underWay(chunk) {
			m.mu.Unlock()
			if err := m.mdc.Sync(ctx); err != nil {
				return err
			}
			continue
		}
		r.Reset()
		for i := range chunk {
			r.Create(&chunk[i])
		}
		if r.Count() > 0 {
			unsynced += recordCost(r.Len())
			if err := m.mdc.CompactAppend(ctx, r.Bytes()); err != nil {
				m.mu.Unlock()
				return err
			}
		}
		m.mu.Unlock()
		if unsynced >= compactSyncAt {
			// Outside the lock, so that no transaction waits for this write.
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

// underWay says whether a transaction that is sent and not applied changes one
// of the objects.
func (m *meta) underWay(objects []layout.Object) bool {
	m.applyMu.Lock()
	defer m.applyMu.Unlock()
	if len(m.pending) == 0 {
		return false
	}
	ids := make(map[layout.ObjectID]struct{}, len(objects))
	for i := range objects {
		ids[objects[i].ID] = struct{}{}
	}
	for _, t := range m.pending {
		for _, id := range t.ids {
			if _, ok := ids[id]; ok {
				return true
			}
		}
	}
	return false
}
