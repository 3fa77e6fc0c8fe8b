package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
)

// container uses the worker's MDC: appends, sometimes a compaction with appends
// in its midst, closes.
func (w *worker) container() {
	id := pick(w, w.m.containers, func(o *containerModel) bool { return o.fate == live })
	if id == 0 {
		if !w.createContainer() {
			return
		}
		return
	}
	cm := w.m.containers[id]
	c, err := w.p.OpenMDC(ctx, id)
	must(err)
	for range 1 + w.rng.IntN(8) {
		w.containerAppend(c, cm)
	}
	if w.rng.IntN(2) == 0 {
		w.compact(c, cm)
	}
	must(c.Close(ctx))
	cm.synced = uint64(len(cm.history))
}

func (w *worker) createContainer() bool {
	id, err := w.p.CreateMDC(ctx, w.options(40000, 0))
	if errors.Is(err, api.ENOSPC) {
		return false
	}
	must(err)
	must(w.m.given(id))
	w.m.containers[id] = &containerModel{fate: live}
	w.m.acks++
	return true
}

func (w *worker) containerAppend(c api.MDC, cm *containerModel) {
	cm.history = append(cm.history, change{key: uint8(w.rng.IntN(10)), value: w.rng.Uint64()})
	version := uint64(len(cm.history))
	sync := w.rng.IntN(2) == 0
	if w.rng.IntN(2) == 0 && w.containerBegun(c, cm, version, sync) {
		return
	}
	err := c.Append(ctx, encodeChange(version, cm.history[version-1]), sync)
	if errors.Is(err, api.EFBIG) {
		cm.history = cm.history[:version-1]
		return
	}
	must(err)
	if sync {
		cm.synced = version
		w.m.acks++
	}
}

func (w *worker) compact(c api.MDC, cm *containerModel) {
	err := c.CompactStart(ctx)
	if errors.Is(err, api.ENOSPC) { // the pool's metadata is full
		return
	}
	must(err)
	for key := range uint8(10) {
		if w.rng.IntN(4) == 0 {
			w.containerAppend(c, cm)
		}
		// The newest change of the key, as it is now.
		for v := len(cm.history); v > 0; v-- {
			if cm.history[v-1].key == key {
				must(c.CompactAppend(ctx, encodeChange(uint64(v), cm.history[v-1])))
				break
			}
		}
	}
	if w.rng.IntN(8) == 0 {
		must(c.CompactAbort(ctx))
		return
	}
	must(c.CompactEnd(ctx))
	cm.synced = uint64(len(cm.history))
}

// checkContainer compares an MDC with its history and returns the version that
// it has.
func checkContainer(p *mpool.Pool, id layout.ObjectID, cm *containerModel) (uint64, error) {
	c, err := p.OpenMDC(ctx, id)
	if err != nil {
		return 0, fmt.Errorf("container %v: %w (S26)", id, err)
	}
	r, err := c.OpenRead(ctx)
	if err != nil {
		return 0, err
	}
	records, err := readAll(r)
	if err != nil {
		return 0, fmt.Errorf("container %v: %w", id, err)
	}
	got := make(map[uint8]uint64)
	var version uint64
	for _, rec := range records {
		v := binary.LittleEndian.Uint64([]byte(rec))
		got[rec[8]] = binary.LittleEndian.Uint64([]byte(rec[9:]))
		version = max(version, v)
	}
	if version < cm.synced || version > uint64(len(cm.history)) {
		return 0, fmt.Errorf("container %v has version %d; %d are acknowledged, %d were appended (S26)",
			id, version, cm.synced, len(cm.history))
	}
	if !maps.Equal(got, cm.state(version)) {
		return 0, fmt.Errorf("container %v at version %d holds a mixture (S26)", id, version)
	}
	if err := r.Close(); err != nil {
		return 0, err
	}
	return version, c.Close(ctx)
}
