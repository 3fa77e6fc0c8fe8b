package powercut

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// verify holds the pool against the ledger, and the ledger agrees with the pool
// about what was unknown.
func (w *worker) verify() error {
	there := make(map[layout.ObjectID]api.ObjectInfo)
	for info, err := range w.p.Objects(w.ctx, api.Filter{Tag: &w.tag}) {
		if err != nil {
			return err
		}
		there[info.ID] = info
	}
	for _, step := range []func(map[layout.ObjectID]api.ObjectInfo) error{
		w.verifyGroups, w.verifyBlocks, w.verifyJournals, w.verifyBoxes, w.verifyStrays,
	} {
		if err := step(there); err != nil {
			return err
		}
	}
	return w.verifyRoot()
}

// verifyGroups looks at what was committed together: all or nothing.
func (w *worker) verifyGroups(there map[layout.ObjectID]api.ObjectInfo) error {
	groups := make(map[*group]bool)
	for _, b := range w.blocks { // order does not matter
		groups[b.with] = true
	}
	for _, j := range w.journals { // nor here
		groups[j.with] = true
	}
	delete(groups, nil)
	for g := range groups { // nor here
		_, first := there[g.ids[0]]
		for _, id := range g.ids {
			if _, ok := there[id]; ok != first {
				return brokenf("of one commit %v is there: %v, %v: %v", g.ids[0], first, id, ok)
			}
		}
	}
	return nil
}

// agrees says whether an object may be there, or not.
func agrees(id layout.ObjectID, f fate, there bool) error {
	if f == live && !there {
		return brokenf("%v is gone; its commit was acknowledged", id)
	}
	return nil
}

// verifyBlocks takes those that it knows out of what is there, as the others do.
func (w *worker) verifyBlocks(there map[layout.ObjectID]api.ObjectInfo) error {
	for id, b := range w.blocks { // order does not matter
		info, ok := there[id]
		delete(there, id)
		if err := agrees(id, b.fate, ok); err != nil {
			return err
		}
		if !ok {
			delete(w.blocks, id)
			continue
		}
		if info.Length != int64(b.data.n) {
			return brokenf("%v has %d bytes, not %d", id, info.Length, b.data.n)
		}
		if err := w.compare(id, b.data); err != nil {
			return brokenf("%v: %v", id, err)
		}
		b.fate, b.with = live, nil
	}
	return nil
}

func (w *worker) verifyJournals(there map[layout.ObjectID]api.ObjectInfo) error {
	for id, j := range w.journals { // order does not matter
		info, ok := there[id]
		delete(there, id)
		if err := agrees(id, j.fate, ok); err != nil {
			return err
		}
		if !ok {
			delete(w.journals, id)
			continue
		}
		records, err := w.readLog(id)
		if err != nil {
			return brokenf("log %v: %v", id, err)
		}
		switch {
		case j.erasing && info.Generation > j.generation:
			j.sent, j.acked = nil, 0
		case info.Generation != j.generation:
			return brokenf("log %v has generation %d, not %d", id, info.Generation, j.generation)
		}
		if len(records) < j.acked || len(records) > len(j.sent) {
			return brokenf("log %v has %d records; %d were acknowledged, %d sent", id, len(records), j.acked, len(j.sent))
		}
		for i, rec := range records {
			if !bytes.Equal(rec, j.sent[i].bytes()) {
				return brokenf("log %v: record %d is not what was appended", id, i)
			}
		}
		*j = journal{generation: info.Generation, sent: j.sent[:len(records)], acked: len(records)}
	}
	return nil
}

func (w *worker) readLog(id layout.ObjectID) ([][]byte, error) {
	l, err := w.p.Mlog(w.ctx, id)
	if err != nil {
		return nil, err
	}
	r, err := l.OpenRead(w.ctx)
	if err != nil {
		return nil, errors.Join(err, l.Put())
	}
	records, err := w.readAll(r)
	return records, errors.Join(err, r.Close(), l.Put())
}

func (w *worker) readAll(r api.LogReader) (records [][]byte, err error) {
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Next(w.ctx, buf)
		if errors.Is(err, io.EOF) {
			return records, nil
		}
		if err != nil {
			return nil, err
		}
		records = append(records, slices.Clone(buf[:n]))
	}
}

func (w *worker) verifyBoxes(there map[layout.ObjectID]api.ObjectInfo) error {
	for id, b := range w.boxes { // order does not matter
		info, ok := there[id]
		delete(there, id)
		if err := agrees(id, b.fate, ok); err != nil {
			return err
		}
		if _, other := there[info.Partner]; ok && !other {
			return brokenf("of container %v only one log is there", id)
		}
		delete(there, info.Partner)
		if !ok {
			delete(w.boxes, id)
			continue
		}
		if err := w.verifyBox(id, b); err != nil {
			return brokenf("container %v: %v", id, err)
		}
		b.fate, b.unsure = live, false
	}
	return nil
}

func (w *worker) verifyBox(id layout.ObjectID, b *box) error {
	m, err := w.p.OpenMDC(w.ctx, id)
	if err != nil {
		return err
	}
	r, err := m.OpenRead(w.ctx)
	if err != nil {
		return errors.Join(err, m.Close(w.ctx))
	}
	records, err := w.readAll(r)
	if err := errors.Join(err, r.Close(), m.Close(w.ctx)); err != nil {
		return err
	}
	got, version := make(map[uint8]uint64), 0
	for _, rec := range records {
		v, c := decodeChange(rec)
		version, got[c.key] = max(version, v), c.value
	}
	if version < b.synced || version > len(b.history) || !maps.Equal(got, b.state(version)) {
		return brokenf("version %d; %d were acknowledged, %d sent", version, b.synced, len(b.history))
	}
	b.history, b.synced = b.history[:version], version
	return nil
}

// verifyStrays looks at what is left: of calls of unknown outcome that gave no
// id.
func (w *worker) verifyStrays(there map[layout.ObjectID]api.ObjectInfo) error {
	for id, info := range there { // order does not matter
		if info.Partner != 0 {
			first := min(id, info.Partner)
			if _, ok := there[first]; !ok {
				continue // deleted a moment ago
			}
			if w.strayBox == 0 {
				return brokenf("container %v is there; its creation was refused, or it was deleted", first)
			}
			w.strayBox--
			delete(there, first)
			if err := w.p.DeleteMDC(w.ctx, first); err != nil {
				return err
			}
			continue
		}
		if err := w.claim(id, &info); err != nil {
			return err
		}
	}
	w.strays, w.strayBox = nil, 0
	return nil
}

// claim finds out which put an mblock comes from.
func (w *worker) claim(id layout.ObjectID, info *api.ObjectInfo) error {
	if info.Kind == layout.KindMblock {
		for i, data := range w.strays {
			if int64(data.n) == info.Length && w.compare(id, data) == nil {
				w.blocks[id] = &block{data: data}
				w.strays = slices.Delete(w.strays, i, i+1)
				return nil
			}
		}
	}
	return brokenf("%v is there; its commit was refused, or it was deleted", id)
}

func (w *worker) verifyRoot() error {
	roots, err := w.p.Roots(w.ctx)
	if err != nil {
		return err
	}
	var got layout.ObjectID
	for _, r := range roots {
		if r.Name == w.rootName() {
			got = r.ID
		}
	}
	if got != w.root && !slices.Contains(w.rootMaybe, got) {
		return brokenf("the root is %v; acknowledged is %v, unknown are %v", got, w.root, w.rootMaybe)
	}
	w.root, w.rootMaybe = got, nil
	return nil
}
