package sim

import (
	"errors"
	"fmt"
	"io"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

func (w *worker) createLog() {
	l, err := w.p.AllocMlog(ctx, w.options(int64(20000+w.rng.IntN(60000)), 0))
	if errors.Is(err, api.ENOSPC) {
		return
	}
	must(err)
	must(w.m.given(l.ID()))
	lm := &logModel{fate: creating, generation: 1, records: make(map[uint64]string), inflight: make(map[string]bool)}
	w.m.logs[l.ID()] = lm
	err = l.Commit(ctx)
	if errors.Is(err, api.ENOSPC) {
		lm.fate = dead
		must(l.Abort(ctx))
		return
	}
	must(err)
	lm.fate = live
	w.m.acks++
	must(l.Put())
}

func (w *worker) openLog() (api.Mlog, *logModel) {
	id := pick(w, w.m.logs, func(o *logModel) bool { return o.fate == live && !o.erasing })
	if id == 0 {
		return nil, nil
	}
	l, err := w.p.Mlog(ctx, id)
	must(err)
	return l, w.m.logs[id]
}

// appendLog appends from two tasks at once and then closes, or does not.
func (w *worker) appendLog() {
	l, lm := w.openLog()
	if l == nil {
		return
	}
	a, err := l.OpenAppend(ctx)
	must(err)
	var done sched.Completion
	done.Init(w.s)
	open := 0 // begun and not told
	appends := func(who string) {
		if w.rng.IntN(2) == 0 {
			w.appendsBegun(l.ID(), lm, a, who, &open)
		} else {
			w.appends(l.ID(), lm, a, who)
		}
	}
	w.s.Go("second appender", func() {
		defer done.Done()
		appends("b")
	})
	appends("a")
	must(done.Wait(ctx))
	if w.rng.IntN(2) == 0 {
		must(w.readLog(l, lm, true))
	}
	records, _ := a.Len()
	must(a.Close(ctx))
	if open != 0 {
		must(fmt.Errorf("mlog %v was closed with %d begun appends not told (S21)", l.ID(), open))
	}
	lm.synced = max(lm.synced, records)
	must(l.Put())
}

func (w *worker) appends(id layout.ObjectID, lm *logModel, a api.Appender, who string) {
	for i := range 1 + w.rng.IntN(6) {
		n := w.rng.IntN(400)
		if w.rng.IntN(10) == 0 {
			n = w.rng.IntN(9000)
		}
		rec := fmt.Sprintf("%v %s %d %x", id, who, i, pattern(w.rng, 8+n/2))
		sync := w.rng.IntN(3) == 0
		lm.inflight[rec] = true
		number, err := a.Append(ctx, []byte(rec), sync)
		if errors.Is(err, api.EFBIG) {
			delete(lm.inflight, rec)
			return
		}
		must(err)
		delete(lm.inflight, rec)
		lm.records[number] = rec
		if sync {
			lm.synced = max(lm.synced, number+1)
			w.m.acks++
		}
	}
	if w.rng.IntN(3) == 0 {
		records, _ := a.Len()
		must(a.Sync(ctx))
		lm.synced = max(lm.synced, records)
	}
}

// readLog compares a log with the model. With all of it known (whole) every
// record must be there.
func (w *worker) readLog(l api.Mlog, lm *logModel, whole bool) error {
	r, err := l.OpenRead(ctx)
	if err != nil {
		return err
	}
	got, err := readAll(r)
	if err == nil {
		err = r.Close()
	}
	if err != nil {
		return fmt.Errorf("mlog %v: %w", l.ID(), err)
	}
	if whole && len(got) != len(lm.records) {
		return fmt.Errorf("mlog %v has %d records of %d (S25)", l.ID(), len(got), len(lm.records))
	}
	return lm.check(l.ID(), got)
}

func readAll(r api.LogReader) ([]string, error) {
	var got []string
	buf := make([]byte, 16)
	for {
		n, err := r.Next(ctx, buf)
		var e *api.Error
		switch {
		case errors.Is(err, io.EOF):
			return got, nil
		case errors.As(err, &e) && e.Code == api.EOVERFLOW:
			buf = make([]byte, e.Want)
			continue
		case err != nil:
			return got, err
		}
		got = append(got, string(buf[:n]))
	}
}

// check compares records that were read with those that were appended.
func (lm *logModel) check(id layout.ObjectID, got []string) error {
	if uint64(len(got)) < lm.synced {
		return fmt.Errorf("mlog %v has %d records, %d were acknowledged (S22)", id, len(got), lm.synced)
	}
	seen := make(map[string]bool)
	for i, rec := range got {
		want, known := lm.records[uint64(i)]
		if known && want != rec || !known && !lm.inflight[rec] || seen[rec] {
			return fmt.Errorf("mlog %v: record %d is not what was appended (S20): known %v, in flight %v, twice %v",
				id, i, known, lm.inflight[rec], seen[rec])
		}
		seen[rec] = true
	}
	return nil
}

func (w *worker) eraseLog() {
	l, lm := w.openLog()
	if l == nil {
		return
	}
	lm.erasing = true
	err := l.Erase(ctx, lm.generation+uint64(w.rng.IntN(3)))
	if errors.Is(err, api.ENOSPC) { // the metadata is full
		lm.erasing = false
		must(l.Put())
		return
	}
	must(err)
	info, err := l.Info(ctx)
	must(err)
	*lm = logModel{fate: live, generation: info.Generation, records: make(map[uint64]string), inflight: make(map[string]bool)}
	w.m.acks++
	must(l.Put())
}

func (w *worker) abortOrDeleteLog() {
	if w.rng.IntN(2) == 0 {
		l, err := w.p.AllocMlog(ctx, w.options(30000, 0))
		if errors.Is(err, api.ENOSPC) {
			return
		}
		must(err)
		must(w.m.given(l.ID()))
		must(l.Abort(ctx))
		return
	}
	l, lm := w.openLog()
	if l == nil {
		return
	}
	lm.fate = removing
	must(w.deleteBusy(l))
	lm.fate = dead
	w.m.acks++
}
