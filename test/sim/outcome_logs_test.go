package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"

	"github.com/mpool-go/mpool/api"
)

// readOnly says whether the pool has failed.
func (u *unsure) readOnly() bool {
	info, err := u.p.Info(ctx)
	must(err)
	return info.State == "read-only"
}

func (u *unsure) createLog() {
	var l api.Mlog
	err := u.with("alloc log", func(ctx context.Context) (err error) {
		l, err = u.p.AllocMlog(ctx, u.options(int64(20000+u.rng.IntN(60000)), 0))
		return err
	})
	if err != nil {
		return
	}
	must(u.m.given(l.ID()))
	lm := &logModel{fate: creating, generation: 1, records: make(map[uint64]string), inflight: make(map[string]bool)}
	u.m.logs[l.ID()] = lm
	err = u.with("commit log", l.Commit)
	if err != nil && !unknown(err) && u.rng.IntN(2) == 0 {
		err = u.with("commit log again", l.Commit)
	}
	switch {
	case err == nil:
		must(l.Put())
		lm.fate = live
		u.m.acks++
	case unknown(err):
		must(l.Put())
	default:
		lm.fate = dead
		must(l.Abort(ctx))
	}
}

// log finds one of the worker's logs. If something of it is unknown, it looks:
// what a log that is opened anew holds is durable.
func (u *unsure) log() (api.Mlog, *logModel) {
	id := pick(&u.worker, u.m.logs, func(o *logModel) bool { return o.fate == live })
	if id == 0 {
		return nil, nil
	}
	l, err := u.p.Mlog(ctx, id)
	must(err)
	lm := u.m.logs[id]
	if !lm.erasing && !lm.unclean {
		return l, lm
	}
	if u.faults || u.readOnly() { // what is unknown stays so until the next activation
		must(l.Put())
		return nil, nil
	}
	var r api.LogReader
	err = u.with("open log to look", func(ctx context.Context) (err error) { r, err = l.OpenRead(ctx); return err })
	if err != nil {
		must(l.Put())
		return nil, nil
	}
	got, err := readAll(r)
	must(err)
	must(r.Close())
	info, err := l.Info(ctx)
	must(err)
	must(lm.checkAfterCrash(id, info.Generation, got))
	lm.settle(true, info.Generation, got)
	return l, lm
}

func (u *unsure) appendLog() {
	l, lm := u.log()
	if l == nil {
		return
	}
	var a api.Appender
	err := u.with("open log", func(ctx context.Context) (err error) { a, err = l.OpenAppend(ctx); return err })
	if err != nil {
		must(l.Put())
		return
	}
	open := 0 // begun and not told
	for i := range 1 + u.rng.IntN(6) {
		rec := fmt.Sprintf("%v %d %x %x", l.ID(), i, u.rng.Uint64(), pattern(u.rng, u.rng.IntN(300)))
		sync := u.rng.IntN(3) == 0
		lm.inflight[rec] = true
		if !u.deadlines && u.rng.IntN(2) == 0 {
			u.logBegun(lm, a, rec, sync, &open)
			continue
		}
		var n uint64
		err := u.with("append", func(ctx context.Context) (err error) { n, err = a.Append(ctx, []byte(rec), sync); return err })
		switch {
		case err == nil:
			lm.records[n] = rec
			if sync {
				lm.synced = max(lm.synced, n+1)
				u.m.acks++
			}
		case unknown(err):
			continue // somewhere, or not
		}
		delete(lm.inflight, rec)
	}
	if u.rng.IntN(3) == 0 {
		records, _ := a.Len()
		if u.with("sync", a.Sync) == nil {
			lm.synced = max(lm.synced, records)
		}
	}
	records, _ := a.Len()
	if u.with("close log", a.Close) == nil {
		lm.synced = max(lm.synced, records)
	} else {
		lm.unclean = true
	}
	if open != 0 {
		must(fmt.Errorf("mlog %v was closed with %d begun appends not told (S21)", l.ID(), open))
	}
	must(l.Put())
}

func (u *unsure) eraseLog() {
	l, lm := u.log()
	if l == nil {
		return
	}
	lm.erasing = true
	err := u.with("erase", func(ctx context.Context) error { return l.Erase(ctx, lm.generation+uint64(u.rng.IntN(3))) })
	if err == nil {
		info, err := l.Info(ctx)
		must(err)
		*lm = logModel{fate: live, generation: info.Generation, records: make(map[uint64]string), inflight: make(map[string]bool)}
		u.m.acks++
	} else {
		lm.erasing = unknown(err)
	}
	must(l.Put())
}

func (u *unsure) deleteLog() {
	l, lm := u.log()
	if l == nil {
		return
	}
	lm.fate = removing
	err := u.with("delete log", func(ctx context.Context) error {
		err := l.Delete(ctx)
		if errors.Is(err, api.EBUSY) {
			return context.Canceled // an open, close or erase that was given up goes on
		}
		return err
	})
	if err == nil {
		u.gone(l.ID())
		return
	}
	must(l.Put())
	if !unknown(err) {
		lm.fate = live
	}
}

func (u *unsure) container() {
	id := pick(&u.worker, u.m.containers, func(o *containerModel) bool { return o.fate == live })
	if id == 0 {
		err := u.with("create container", func(ctx context.Context) (err error) {
			id, err = u.p.CreateMDC(ctx, u.options(40000, 0))
			return err
		})
		switch {
		case err == nil:
			must(u.m.given(id))
			u.m.containers[id] = &containerModel{fate: live}
			u.m.acks++
		case unknown(err):
			must(u.m.given(id))
			u.m.containers[id] = &containerModel{fate: creating}
		}
		return
	}
	cm := u.m.containers[id]
	var c api.MDC
	if u.with("open container", func(ctx context.Context) (err error) {
		c, err = u.p.OpenMDC(ctx, id)
		if errors.Is(err, api.EBUSY) {
			return context.Canceled // its close was given up and goes on
		}
		return err
	}) != nil {
		return
	}
	if !u.lookContainer(c, cm) {
		must(u.explain("close container", c.Close(ctx)))
		return
	}
	for range 1 + u.rng.IntN(8) {
		u.appendContainer(c, cm)
	}
	if u.rng.IntN(2) == 0 {
		u.compact(c, cm)
	}
	if u.with("close container", c.Close) == nil {
		cm.synced = uint64(len(cm.history))
	} else {
		cm.unclean = true
	}
}

// lookContainer reads a container after something in it was unknown.
func (u *unsure) lookContainer(c api.MDC, cm *containerModel) bool {
	if !cm.unclean {
		return true
	}
	if u.faults || u.readOnly() {
		return false
	}
	r, err := c.OpenRead(ctx)
	must(err)
	records, err := readAll(r)
	must(err)
	must(r.Close())
	got := make(map[uint8]uint64)
	var version uint64
	for _, rec := range records {
		version = max(version, binary.LittleEndian.Uint64([]byte(rec)))
		got[rec[8]] = binary.LittleEndian.Uint64([]byte(rec[9:]))
	}
	if version < cm.synced || version > uint64(len(cm.history)) || !maps.Equal(got, cm.state(version)) {
		must(fmt.Errorf("a container opened anew has version %d; %d are acknowledged, %d were appended (S26)",
			version, cm.synced, len(cm.history)))
	}
	cm.history, cm.synced, cm.unclean = cm.history[:version:version], version, false
	return true
}

func (u *unsure) appendContainer(c api.MDC, cm *containerModel) {
	cm.history = append(cm.history, change{key: uint8(u.rng.IntN(10)), value: u.rng.Uint64()})
	version := uint64(len(cm.history))
	sync := u.rng.IntN(2) == 0
	err := u.with("append to container", func(ctx context.Context) error {
		return c.Append(ctx, encodeChange(version, cm.history[version-1]), sync)
	})
	switch {
	case err == nil && sync:
		cm.synced = version
		u.m.acks++
	case err != nil && !unknown(err):
		cm.history = cm.history[:version-1]
	}
}

func (u *unsure) compact(c api.MDC, cm *containerModel) {
	if u.with("compaction start", c.CompactStart) != nil {
		return
	}
	for key := range uint8(10) {
		if u.rng.IntN(4) == 0 {
			u.appendContainer(c, cm)
		}
		for v := len(cm.history); v > 0; v-- {
			if cm.history[v-1].key != key {
				continue
			}
			if u.with("compaction", func(ctx context.Context) error {
				return c.CompactAppend(ctx, encodeChange(uint64(v), cm.history[v-1]))
			}) != nil {
				u.abortCompaction(c)
				return
			}
			break
		}
	}
	if u.rng.IntN(8) == 0 {
		u.abortCompaction(c)
		return
	}
	if err := u.with("compaction end", c.CompactEnd); err == nil {
		cm.synced = uint64(len(cm.history))
	} else if !unknown(err) {
		u.abortCompaction(c)
	}
}

// abortCompaction gives a compaction up that may be over already.
func (u *unsure) abortCompaction(c api.MDC) {
	_ = u.with("compaction abort", func(ctx context.Context) error { // with has looked at it
		if err := c.CompactAbort(ctx); !errors.Is(err, api.ESTATE) {
			return err
		}
		return nil
	})
}

func (u *unsure) deleteContainer() {
	if u.rng.IntN(3) > 0 {
		return
	}
	id := pick(&u.worker, u.m.containers, func(o *containerModel) bool { return o.fate == live })
	if id == 0 {
		return
	}
	cm := u.m.containers[id]
	cm.fate = removing
	err := u.with("delete container", func(ctx context.Context) error {
		err := u.p.DeleteMDC(ctx, id)
		if errors.Is(err, api.EBUSY) {
			return context.Canceled // its close was given up and goes on
		}
		return err
	})
	switch {
	case err == nil:
		delete(u.m.containers, id)
		u.m.acks++
	case !unknown(err):
		cm.fate = live
	}
}
