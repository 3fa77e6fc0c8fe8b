package powercut

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// Bounds of what a worker has.
const (
	mostBlocks   = 12
	mostJournals = 2
	inVain       = 6 // failures in a row after which a worker gives up: the drive is gone
)

// worker works through one pool until its drives or its daemon are gone.
type worker struct {
	*ledger
	ctx context.Context
	p   api.Pool
}

// work does one thing after another. The error is a broken promise.
func (w *worker) work() error {
	for failures := 0; failures < inVain; {
		err := w.step()
		if wrong, ok := errors.AsType[*broken](err); ok {
			return wrong
		}
		if err != nil {
			failures++
			continue
		}
		failures = 0
	}
	return nil
}

// broken is a promise that was not kept, as opposed to the errors of a drive
// that fails.
type broken struct{ text string }

func (b *broken) Error() string { return b.text }

func brokenf(format string, args ...any) error { return &broken{fmt.Sprintf(format, args...)} }

func (w *worker) step() error {
	if len(w.blocks) > mostBlocks {
		return w.remove()
	}
	switch n := w.rng.IntN(32); {
	case n < 7:
		return w.put()
	case n < 10:
		return w.write()
	case n < 13:
		return w.remove()
	case n < 15:
		return w.many()
	case n < 17:
		return w.pointRoot()
	case n < 19:
		return w.newJournal()
	case n < 24:
		return w.append()
	case n < 25:
		return w.erase()
	case n < 26:
		return w.removeJournal()
	case n < 30:
		return w.update()
	case n < 31:
		return w.removeBox()
	default:
		return w.look()
	}
}

func (w *worker) options(n int) api.AllocOptions {
	o := api.AllocOptions{Capacity: int64(n), Tag: w.tag}
	if w.rng.IntN(3) == 0 {
		o.Class, o.Fallback = api.ClassStaging, true
	}
	return o
}

// put is one call for all of an mblock.
func (w *worker) put() error {
	data := w.content(w.rng.IntN(20_000))
	m, err := w.p.PutMblock(w.ctx, w.options(data.n), data.bytes())
	if unknown(err) {
		w.strays = append(w.strays, data)
	}
	if err != nil {
		return err
	}
	w.blocks[m.ID()] = &block{data: data}
	w.acked++
	return m.Put()
}

// fresh allocates and writes an mblock.
func (w *worker) fresh(n int) (api.Mblock, content, error) {
	data := w.content(n)
	m, err := w.p.AllocMblock(w.ctx, w.options(n))
	if err != nil {
		return nil, data, err
	}
	b := data.bytes()
	for len(b) > 0 {
		k := min(len(b), 4096*(1+w.rng.IntN(4)))
		if _, err := m.Write(w.ctx, b[:k]); err != nil {
			return nil, data, errors.Join(err, m.Abort(w.ctx))
		}
		b = b[k:]
	}
	return m, data, nil
}

func (w *worker) write() error {
	m, data, err := w.fresh(w.rng.IntN(200_000))
	if err != nil {
		return err
	}
	err = m.Commit(w.ctx)
	switch {
	case err == nil:
		w.blocks[m.ID()] = &block{data: data}
		w.acked++
	case unknown(err):
		w.blocks[m.ID()] = &block{fate: creating, data: data}
	default:
		return errors.Join(err, m.Abort(w.ctx))
	}
	return errors.Join(err, m.Put())
}

// many commits several mblocks, at times with a log, and at times with the root.
func (w *worker) many() error {
	var objects []api.Object
	var roots []api.Root
	datas := make(map[layout.ObjectID]content)
	giveUp := func(err error) error {
		for _, o := range objects {
			_ = o.Abort(w.ctx) // its session ends soon, which aborts it, too
		}
		return err
	}
	for range 2 + w.rng.IntN(3) {
		m, data, err := w.fresh(w.rng.IntN(30_000))
		if err != nil {
			return giveUp(err)
		}
		objects, datas[m.ID()] = append(objects, m), data
	}
	if len(w.journals) < mostJournals && w.rng.IntN(2) == 0 {
		l, err := w.p.AllocMlog(w.ctx, w.options(60_000))
		if err != nil {
			return giveUp(err)
		}
		objects = append(objects, l)
	}
	target := objects[0].ID()
	if w.rng.IntN(2) == 0 {
		roots = []api.Root{{Name: w.rootName(), ID: target}}
	}
	err := w.p.CommitMany(w.ctx, objects, roots)
	if err != nil && !unknown(err) {
		return giveUp(err)
	}
	if roots != nil {
		w.setRoot(target, err)
	}
	w.enter(objects, datas, err)
	for _, o := range objects {
		err = errors.Join(err, o.Put())
	}
	return err
}

// enter enters what was committed together, or may have been.
func (w *worker) enter(objects []api.Object, datas map[layout.ObjectID]content, err error) {
	var g *group
	f := live
	if err != nil {
		f, g = creating, &group{}
	} else {
		w.acked++
	}
	for _, o := range objects {
		if g != nil {
			g.ids = append(g.ids, o.ID())
		}
		if o.ID().Kind() == layout.KindMlog {
			w.journals[o.ID()] = &journal{fate: f, with: g, generation: 1}
		} else {
			w.blocks[o.ID()] = &block{fate: f, with: g, data: datas[o.ID()]}
		}
	}
}

func (w *worker) remove() error {
	id := pick(w.rng, w.blocks, func(b *block) bool { return b.fate == live })
	if id == 0 {
		return nil
	}
	m, err := w.p.Mblock(w.ctx, id)
	if err != nil {
		return w.mustBe(id, err)
	}
	err = m.Delete(w.ctx)
	switch {
	case err == nil:
		delete(w.blocks, id)
		w.acked++
		return nil
	case unknown(err):
		w.blocks[id].fate = removing
	}
	_ = m.Put() // its session ends soon, which gives it back, too
	return err
}

// mustBe says what it means when something that was acknowledged is not found.
func (w *worker) mustBe(id layout.ObjectID, err error) error {
	if errors.Is(err, api.ENOENT) || errors.Is(err, api.ECORRUPT) {
		return brokenf("%v, which was acknowledged: %v", id, err)
	}
	return err
}

func (w *worker) pointRoot() error {
	id := pick(w.rng, w.blocks, func(b *block) bool { return b.fate == live })
	if id == 0 {
		return nil
	}
	err := w.p.SetRoots(w.ctx, []api.Root{{Name: w.rootName(), ID: id}})
	w.setRoot(id, err)
	if err == nil {
		w.acked++
	}
	return err
}

// look reads an mblock that was acknowledged.
func (w *worker) look() error {
	id := pick(w.rng, w.blocks, func(b *block) bool { return b.fate == live })
	if id == 0 {
		return nil
	}
	return w.mustBe(id, w.compare(id, w.blocks[id].data))
}

// compare says whether an mblock has its content.
func (w *worker) compare(id layout.ObjectID, want content) error {
	m, err := w.p.Mblock(w.ctx, id)
	if err != nil {
		return err
	}
	got := make([]byte, want.n+1)
	n, err := m.ReadAtContext(w.ctx, got, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return errors.Join(err, m.Put())
	}
	if !bytes.Equal(got[:n], want.bytes()) {
		return brokenf("%v has other bytes than were written", id)
	}
	return m.Put()
}
