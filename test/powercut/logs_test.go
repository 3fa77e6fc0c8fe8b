package powercut

import (
	"errors"

	"github.com/mpool-go/mpool/api"
)

func (w *worker) newJournal() error {
	if len(w.journals) >= mostJournals {
		return nil
	}
	l, err := w.p.AllocMlog(w.ctx, w.options(40_000+w.rng.IntN(60_000)))
	if err != nil {
		return err
	}
	err = l.Commit(w.ctx)
	switch {
	case err == nil:
		w.journals[l.ID()] = &journal{generation: 1}
		w.acked++
	case unknown(err):
		w.journals[l.ID()] = &journal{fate: creating, generation: 1}
	default:
		return errors.Join(err, l.Abort(w.ctx))
	}
	return errors.Join(err, l.Put())
}

// journal finds a log of which all is known.
func (w *worker) journal() (api.Mlog, *journal, error) {
	id := pick(w.rng, w.journals, func(j *journal) bool { return j.fate == live && !j.unsure && !j.erasing })
	if id == 0 {
		return nil, nil, nil
	}
	l, err := w.p.Mlog(w.ctx, id)
	return l, w.journals[id], w.mustBe(id, err)
}

func (w *worker) append() error {
	l, j, err := w.journal()
	if l == nil || err != nil {
		return err
	}
	a, err := l.OpenAppend(w.ctx)
	if err != nil {
		return errors.Join(w.mustBe(l.ID(), err), l.Put())
	}
	for range 1 + w.rng.IntN(10) {
		if err = w.appendOne(a, j); err != nil {
			break
		}
	}
	if err == nil && w.rng.IntN(3) == 0 {
		if err = a.Sync(w.ctx); err == nil {
			j.acked = len(j.sent)
		}
	}
	cerr := a.Close(w.ctx)
	switch {
	case cerr != nil, err != nil:
		j.unsure = true
	default:
		j.acked = len(j.sent)
		w.acked++
	}
	return errors.Join(err, cerr, l.Put())
}

func (w *worker) appendOne(a api.Appender, j *journal) error {
	n := w.rng.IntN(500)
	if w.rng.IntN(4) == 0 {
		n = w.rng.IntN(9000)
	}
	data, sync := w.content(n), w.rng.IntN(2) == 0
	number, err := a.Append(w.ctx, data.bytes(), sync)
	switch {
	case errors.Is(err, api.EFBIG):
		return nil
	case err != nil && !unknown(err):
		return err
	}
	j.sent = append(j.sent, data)
	switch {
	case err != nil:
		return err
	case number != uint64(len(j.sent)-1):
		return brokenf("record %d of a log got number %d", len(j.sent)-1, number)
	case sync:
		j.acked = len(j.sent)
		w.acked++
	}
	return nil
}

func (w *worker) erase() error {
	l, j, err := w.journal()
	if l == nil || err != nil {
		return err
	}
	err = l.Erase(w.ctx, 0)
	switch {
	case err == nil:
		*j = journal{generation: j.generation + 1}
		w.acked++
	case unknown(err):
		j.erasing = true
	}
	return errors.Join(err, l.Put())
}

func (w *worker) removeJournal() error {
	l, j, err := w.journal()
	if l == nil || err != nil {
		return err
	}
	err = l.Delete(w.ctx)
	switch {
	case err == nil:
		delete(w.journals, l.ID())
		w.acked++
		return nil
	case unknown(err):
		j.fate = removing
	}
	_ = l.Put() // its session ends soon, which gives it back, too
	return err
}

// update opens the container, changes the map, and at times compacts it.
func (w *worker) update() error {
	if len(w.boxes) == 0 {
		id, err := w.p.CreateMDC(w.ctx, w.options(30_000))
		switch {
		case err == nil:
			w.boxes[id] = &box{}
			w.acked++
		case unknown(err):
			w.strayBox++
		}
		return err
	}
	id := pick(w.rng, w.boxes, func(b *box) bool { return b.fate == live && !b.unsure })
	if id == 0 {
		return nil
	}
	b := w.boxes[id]
	m, err := w.p.OpenMDC(w.ctx, id)
	if err != nil {
		return w.mustBe(id, err)
	}
	for range 1 + w.rng.IntN(8) {
		if err = w.updateOne(m, b); err != nil {
			break
		}
	}
	used, capacity := m.Usage()
	if err == nil && (w.rng.IntN(3) == 0 || used > capacity/2) {
		err = w.compact(m, b)
	}
	cerr := m.Close(w.ctx)
	if err != nil || cerr != nil {
		b.unsure = true
		return errors.Join(err, cerr)
	}
	b.synced = len(b.history)
	w.acked++
	return nil
}

func (w *worker) updateOne(m api.MDC, b *box) error {
	c := change{uint8(w.rng.IntN(changeKeys)), w.rng.Uint64()}
	sync := w.rng.IntN(2) == 0
	err := m.Append(w.ctx, c.record(len(b.history)+1), sync)
	switch {
	case errors.Is(err, api.EFBIG):
		return nil
	case err == nil || unknown(err):
		b.history = append(b.history, c)
	}
	if err == nil && sync {
		b.synced = len(b.history)
		w.acked++
	}
	return err
}

func (w *worker) compact(m api.MDC, b *box) error {
	if err := m.CompactStart(w.ctx); err != nil {
		return err
	}
	for key := range uint8(changeKeys) {
		if w.rng.IntN(4) == 0 {
			if err := w.updateOne(m, b); err != nil {
				return err
			}
		}
		for v := len(b.history); v > 0; v-- {
			if c := b.history[v-1]; c.key == key {
				if err := m.CompactAppend(w.ctx, c.record(v)); err != nil {
					return err
				}
				break
			}
		}
	}
	if w.rng.IntN(6) == 0 {
		return m.CompactAbort(w.ctx)
	}
	err := m.CompactEnd(w.ctx)
	if err == nil {
		b.synced = len(b.history)
		w.acked++
	}
	return err
}

func (w *worker) removeBox() error {
	id := pick(w.rng, w.boxes, func(b *box) bool { return b.fate == live && !b.unsure })
	if id == 0 || w.rng.IntN(3) > 0 {
		return nil
	}
	err := w.p.DeleteMDC(w.ctx, id)
	switch {
	case err == nil:
		delete(w.boxes, id)
		w.acked++
	case unknown(err):
		w.boxes[id].fate = removing
	}
	return err
}
