package sim

import (
	"errors"
	"fmt"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
)

func sorted[T any](m map[layout.ObjectID]T) []layout.ObjectID {
	ids := make([]layout.ObjectID, 0, len(m))
	for id := range m { // order does not matter: sorted below
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// verify compares an activated pool with the model. With settle it makes the
// model agree about everything that was open.
func verify(p *mpool.Pool, m *model, drives int, settle bool) error {
	there, err := list(p, m)
	if err != nil {
		return err
	}
	if err := verifyMblocks(p, m, there, settle); err != nil {
		return err
	}
	if err := verifyLogs(p, m, there, settle); err != nil {
		return err
	}
	for _, id := range sorted(m.containers) {
		cm := m.containers[id]
		version, err := checkContainer(p, id, cm)
		if err != nil {
			return err
		}
		if settle {
			cm.history, cm.synced = cm.history[:version:version], version
		}
	}
	if err := verifyRoots(p, m, settle); err != nil {
		return err
	}
	if err := verifyHeld(p); err != nil {
		return err
	}
	return verifySpace(p, drives)
}

// verifyHeld compares what each owner holds with the sum over the objects (G22).
func verifyHeld(p *mpool.Pool) error {
	owners, err := p.Owners(ctx)
	if err != nil {
		return err
	}
	sum := make([]mpool.Holding, len(owners))
	for info, err := range p.Objects(ctx, api.Filter{}) {
		if err != nil {
			return err
		}
		bytes, count := mpool.HoldCapacity, mpool.HoldMlogs
		if info.Class == api.ClassStaging {
			bytes = mpool.HoldStaging
		}
		if info.Kind == layout.KindMblock {
			count = mpool.HoldMblocks
		}
		for i := info.Owner; ; i = owners[i].Parent {
			sum[i][bytes] += info.Used
			sum[i][count]++
			if i == 0 {
				break
			}
		}
	}
	for i, want := range sum {
		if got, reserved := p.Held(uint32(i)); got != want || reserved != (mpool.Holding{}) {
			return fmt.Errorf("owner %d holds %v and reserves %v; its objects add up to %v (G22)", i, got, reserved, want)
		}
	}
	return nil
}

// list returns what the pool holds; everything in it must have been made.
func list(p *mpool.Pool, m *model) (map[layout.ObjectID]api.ObjectInfo, error) {
	there := make(map[layout.ObjectID]api.ObjectInfo)
	for info, err := range p.Objects(ctx, api.Filter{}) {
		if err != nil {
			return nil, err
		}
		if info.State != api.StateCommitted {
			return nil, fmt.Errorf("object %v is %v after activation", info.ID, info.State)
		}
		if _, twice := there[info.ID]; twice {
			return nil, fmt.Errorf("object %v is listed twice", info.ID)
		}
		there[info.ID] = info
	}
	for _, id := range sorted(there) {
		if m.mblocks[id] == nil && m.logs[id] == nil && m.containers[id] == nil && there[id].Partner == 0 {
			return nil, fmt.Errorf("object %v was never committed", id)
		}
	}
	return there, nil
}

// agrees says whether an object's presence is allowed.
func agrees(id layout.ObjectID, f fate, there bool) error {
	switch {
	case f == live && !there:
		return fmt.Errorf("object %v is gone; its commit was acknowledged (S12)", id)
	case f == dead && there:
		return fmt.Errorf("object %v is there; it was deleted or never committed (S15)", id)
	}
	return nil
}

func verifyMblocks(p *mpool.Pool, m *model, there map[layout.ObjectID]api.ObjectInfo, settle bool) error {
	buf := memory(32 << 10) // for most of them
	for _, id := range sorted(m.mblocks) {
		mm := m.mblocks[id]
		info, ok := there[id]
		if err := agrees(id, mm.fate, ok); err != nil {
			return err
		}
		if err := verifyGroup(mm.with, id, ok, there); err != nil {
			return err
		}
		if ok {
			if info.Tag != mm.tag || info.Length != int64(len(mm.data)) {
				return fmt.Errorf("mblock %v: tag or length differ (S11)", id)
			}
			b, err := p.Mblock(ctx, id)
			if err != nil {
				return err
			}
			if n := len(mm.data) + 1; n > len(buf) {
				buf = memory(n)
			}
			if err := compareIn(b, mm.data, buf[:len(mm.data)+1]); err != nil {
				return err
			}
			if err := b.Put(); err != nil {
				return err
			}
		}
		if settle {
			mm.settle(ok)
		}
	}
	return nil
}

func (mm *mblockModel) settle(there bool) {
	mm.fate = dead
	if there {
		mm.fate = live
	}
	if g := mm.with; g != nil {
		mm.with = nil
	}
}

// verifyGroup compares an object's presence with that of its commit's others.
func verifyGroup(g *group, id layout.ObjectID, ok bool, there map[layout.ObjectID]api.ObjectInfo) error {
	if g == nil {
		return nil
	}
	for _, other := range g.objects {
		if _, o := there[other]; o != ok {
			return fmt.Errorf("of one commit %v is there: %v, %v: %v (S12)", id, ok, other, o)
		}
	}
	return nil
}

func verifyLogs(p *mpool.Pool, m *model, there map[layout.ObjectID]api.ObjectInfo, settle bool) error {
	for _, id := range sorted(m.logs) {
		lm := m.logs[id]
		info, ok := there[id]
		if err := agrees(id, lm.fate, ok); err != nil {
			return err
		}
		var got []string
		if ok {
			l, err := p.Mlog(ctx, id)
			if err != nil {
				return err
			}
			r, err := l.OpenRead(ctx)
			if err != nil {
				return fmt.Errorf("mlog %v: open: %w (S22)", id, err)
			}
			if got, err = readAll(r); err != nil {
				return fmt.Errorf("mlog %v: %w (S22)", id, err)
			}
			if err := errors.Join(r.Close(), l.Put()); err != nil {
				return err
			}
			if err := lm.checkAfterCrash(id, info.Generation, got); err != nil {
				return err
			}
		}
		if settle {
			lm.settle(ok, info.Generation, got)
		}
	}
	return nil
}

func (lm *logModel) checkAfterCrash(id layout.ObjectID, generation uint64, got []string) error {
	switch {
	case lm.erasing && generation > lm.generation:
		if len(got) != 0 {
			return fmt.Errorf("mlog %v has %d records after its erase (S24)", id, len(got))
		}
		return nil
	case generation != lm.generation:
		return fmt.Errorf("mlog %v has generation %d, not %d (S24)", id, generation, lm.generation)
	}
	return lm.check(id, got)
}

func (lm *logModel) settle(there bool, generation uint64, got []string) {
	*lm = logModel{generation: generation, records: make(map[uint64]string), inflight: make(map[string]bool)}
	if there {
		lm.fate = live
	}
	for i, rec := range got {
		lm.records[uint64(i)] = rec
	}
	lm.synced = uint64(len(got))
}

func verifyRoots(p *mpool.Pool, m *model, settle bool) error {
	roots, err := p.Roots(ctx)
	if err != nil {
		return err
	}
	got := make(map[string]layout.ObjectID)
	for _, r := range roots {
		got[r.Name] = r.ID
	}
	for n := range workers {
		name := fmt.Sprintf("w%d", n)
		ok := got[name] == m.roots[name]
		for _, id := range m.rootMaybe[name] {
			ok = ok || got[name] == id
		}
		if !ok {
			return fmt.Errorf("root %s is %v; acknowledged is %v, open %v (S9)", name, got[name], m.roots[name], m.rootMaybe[name])
		}
		if settle {
			m.roots[name], m.rootMaybe[name] = got[name], nil
		}
	}
	return nil
}

// verifySpace adds up what is free, live, overhead and the rest.
func verifySpace(p *mpool.Pool, drives int) error {
	info, err := p.Info(ctx)
	if err != nil {
		return err
	}
	s := info.Space
	sum := s.Free + s.Live + s.Uncommitted + s.Draining + s.Spare + s.Overhead + s.Remainder
	var used int64
	for o, err := range p.Objects(ctx, api.Filter{}) {
		if err != nil {
			return err
		}
		used += o.Used
	}
	if sum != s.Total || used != s.Live || s.Uncommitted != 0 || s.Total != int64(drives)*diskSize {
		return fmt.Errorf("space does not add up: %+v, objects use %d (S7)", s, used)
	}
	return nil
}
