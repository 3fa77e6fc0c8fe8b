package death

import (
	"context"
	"fmt"
	"sync"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// audit compares what the dead left in the pool with what they told, and
// removes it.
func (k *kill) audit(ledgers map[uint32]*ledger) {
	k.t.Helper()
	ctx := context.Background()
	there := make(map[uint32]map[tag]bool, len(ledgers))
	for serial := range ledgers {
		there[serial] = map[tag]bool{}
	}
	var found []api.ObjectInfo
	for info, err := range k.p.Objects(ctx, api.Filter{}) {
		if err != nil {
			k.t.Fatal(err)
		}
		t := tag(info.Tag)
		switch tags := there[t.serial()]; {
		case t.serial() == 0:
			continue
		case tags == nil:
			k.t.Errorf("object %v of tag %x is nobody's", info.ID, t)
		case info.Partner != 0 && info.Partner.Counter() < info.ID.Counter():
			continue // the second log of a container
		default:
			tags[t] = true
		}
		found = append(found, info)
	}
	for serial, l := range ledgers {
		if err := l.judge(there[serial]); err != nil {
			k.t.Errorf("victim %d, %s: %v", serial, l.plan, err)
		}
	}
	k.roots(ctx, ledgers)
	k.objects += len(found)
	work := make(chan api.ObjectInfo)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for info := range work {
				l := ledgers[tag(info.Tag).serial()]
				if err := bury(ctx, k.p, info, l); err != nil {
					k.t.Errorf("object %v of tag %x, of a victim %s: %v", info.ID, info.Tag, l.plan, err)
				}
			}
		})
	}
	for _, info := range found {
		work <- info
	}
	close(work)
	wg.Wait()
}

// roots looks at the roots of the dead and removes them.
func (k *kill) roots(ctx context.Context, ledgers map[uint32]*ledger) {
	k.t.Helper()
	roots, err := k.p.Roots(ctx)
	if err != nil {
		k.t.Fatal(err)
	}
	set := map[string]bool{}
	var unset []api.Root
	for _, r := range roots {
		set[r.Name] = true
		unset = append(unset, api.Root{Name: r.Name})
	}
	for serial, l := range ledgers {
		begun, done := false, false
		for t, n := range l.begun {
			begun = begun || n > 1
			done = done || n > 1 && l.done[t]
		}
		if has := set[rootName(serial)]; has && !begun || !has && done {
			k.t.Errorf("victim %d: its root is there: %v; commits that set it were sent: %v, acknowledged: %v", serial, has, begun, done)
		}
	}
	if len(unset) == 0 {
		return
	}
	if err := k.p.SetRoots(ctx, unset); err != nil {
		k.t.Fatal(err)
	}
}

// bury compares an object of a dead client's with what it has to be, and
// deletes it: that succeeds only if nobody has a reference any more.
func bury(ctx context.Context, p api.Pool, info api.ObjectInfo, l *ledger) error {
	t := tag(info.Tag)
	switch {
	case info.Partner != 0:
		return buryContainer(ctx, p, info, l)
	case info.Kind == layout.KindMblock:
		b, err := p.Mblock(ctx, info.ID)
		if err != nil {
			return err
		}
		if err := t.matches(ctx, b); err != nil {
			return err
		}
		return b.Delete(ctx)
	}
	m, err := p.Mlog(ctx, info.ID)
	if err != nil {
		return err
	}
	r, err := m.OpenRead(ctx)
	if err != nil {
		return err
	}
	if err := l.counted(t, r); err != nil {
		return err
	}
	if err := r.Close(); err != nil {
		return err
	}
	return m.Delete(ctx)
}

func buryContainer(ctx context.Context, p api.Pool, info api.ObjectInfo, l *ledger) error {
	m, err := p.OpenMDC(ctx, info.ID)
	if err != nil {
		return err
	}
	r, err := m.OpenRead(ctx)
	if err != nil {
		return err
	}
	if err := l.counted(tag(info.Tag), r); err != nil {
		return err
	}
	if err := r.Close(); err != nil {
		return err
	}
	if err := m.Close(ctx); err != nil {
		return err
	}
	return p.DeleteMDC(ctx, info.ID)
}

// counted says whether a log has the records that its client was told of, and
// at most those more that were under way.
func (l *ledger) counted(t tag, r api.LogReader) error {
	n, err := t.count(context.Background(), r)
	if acked := l.records[t]; err == nil && (n < acked || n > max(acked+1, l.asked[t])) {
		err = fmt.Errorf("%d records; %d were acknowledged", n, acked)
	}
	return err
}
