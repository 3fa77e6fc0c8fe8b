package check

import (
	"maps"
	"slices"

	"github.com/mpool-go/mpool/layout"
)

// compare reports what a compaction changed: the state at its end mark against
// that of the log it replaced.
func (s *state) compare(f *state) {
	everyObject(f.table, func(o *layout.Object) {
		now, ok := s.table.Lookup(o.ID)
		switch {
		case !ok:
			s.find(CompactionDiffers, o.ID, "the compaction lost the object")
		case !same(o, &now):
			s.find(CompactionDiffers, o.ID, "the compaction changed the object: %s became %s", describe(o), describe(&now))
		}
	})
	if s.table.Len() != f.table.Len() {
		everyObject(s.table, func(o *layout.Object) {
			if _, ok := f.table.Lookup(o.ID); !ok {
				s.find(CompactionDiffers, o.ID, "the compaction brought a deleted object back")
			}
		})
	}
	var what string
	switch {
	case !maps.Equal(s.roots, f.roots):
		what = "roots"
	case !slices.Equal(s.owners, f.owners):
		what = "owners"
	case !maps.Equal(s.properties, f.properties):
		what = "properties"
	case s.nextID != f.nextID || s.nextBirth != f.nextBirth:
		what = "counters"
	default:
		return
	}
	s.find(CompactionDiffers, 0, "the compaction changed the pool's %s", what)
}

// everyObject calls f for every object of a table.
func everyObject(t *layout.Table, f func(*layout.Object)) {
	for cursor := uint64(0); ; {
		cursor = t.Scan(cursor, 1<<20, func(o layout.Object) { f(&o) })
		if cursor == 0 {
			return
		}
	}
}

func same(a, b *layout.Object) bool {
	return a.ID == b.ID && a.Birth == b.Birth && a.Extent == b.Extent && a.Written == b.Written &&
		a.Capacity == b.Capacity && a.Owner == b.Owner && a.Tag == b.Tag && a.Created == b.Created &&
		a.Generation == b.Generation && a.Partner == b.Partner && slices.Equal(a.Sums, b.Sums)
}
