package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
)

// extent is an object's place.
type extent struct {
	start  uint64 // blocks
	id     layout.ObjectID
	blocks uint32
	slot   uint16
}

// objects checks every object by itself and all of them together, and returns
// their places in the order of drives and blocks.
func (c *checker) objects(st *state) []extent {
	list := make([]extent, 0, st.table.Len())
	everyObject(st.table, func(o *layout.Object) {
		c.report.Objects++
		if o.ID.Kind() == layout.KindMblock {
			c.report.Mblocks++
		} else {
			c.report.Mlogs++
		}
		list = append(list, extent{start: o.Extent.Start, blocks: o.Extent.Blocks, slot: o.Extent.Drive, id: o.ID})
		c.object(st, o)
	})
	slices.SortFunc(list, func(a, b extent) int {
		return cmp.Or(cmp.Compare(a.slot, b.slot), cmp.Compare(a.start, b.start), cmp.Compare(a.id, b.id))
	})
	c.overlaps(list)
	c.account()
	c.births(st)
	c.roots(st)
	c.room(st)
	return list
}

// place makes a problem at an object's extent.
func (c *checker) place(o *layout.Object, code, format string, args ...any) Problem {
	p := Problem{Code: code, Object: o.ID, Text: fmt.Sprintf(format, args...)}
	if d := c.bySlot[o.Extent.Drive]; d != nil && d.dev != nil {
		p.Device, p.Offset = d.dev.path, o.Extent.Offset()
	}
	return p
}

// object checks one object's description.
func (c *checker) object(st *state, o *layout.Object) {
	if p, ok := c.misplaced(o); ok {
		c.problem(p)
	}
	if o.ID.Counter() >= st.nextID || o.Birth >= st.nextBirth {
		c.problem(c.place(o, CounterAbove, "id or birth stamp %d is not below the counters %d and %d", o.Birth, st.nextID, st.nextBirth))
	}
	if int64(o.Owner) >= int64(len(st.owners)) {
		c.problem(c.place(o, OwnerUnknown, "owner %d; there are %d", o.Owner, len(st.owners)))
	}
	switch o.ID.Kind() {
	case layout.KindMblock:
		if o.Capacity > api.MaxMblockCapacity || o.Written > o.Capacity || o.Generation != 0 || o.Partner != 0 {
			c.problem(c.place(o, ObjectFields, "%s: no mblock is so", describe(o)))
		}
	case layout.KindMlog:
		if o.Capacity == 0 {
			c.problem(c.place(o, ObjectFields, "%s: no mlog is so", describe(o)))
		}
		c.partner(st, o)
	}
}

// misplaced says what is wrong with an object's extent by itself.
func (c *checker) misplaced(o *layout.Object) (Problem, bool) {
	d := c.bySlot[o.Extent.Drive]
	if d == nil {
		return c.place(o, ExtentDrive, "the object lies on drive %d, which the pool does not have", o.Extent.Drive), true
	}
	need := int64(mlog.SlotPages + 1)
	if o.ID.Kind() == layout.KindMblock {
		need = int64(mblock.BlocksFor(int64(o.Written)))
	} else if n := mlog.BlocksFor(int64(min(o.Capacity, 1<<62))); n > 0 {
		need = int64(n)
	}
	switch whole, inside := d.wholeZones(o.Extent); {
	case !inside:
		return c.place(o, ExtentOutside, "%d blocks at block %d are not in the zones for objects, %d to %d of %d bytes",
			o.Extent.Blocks, o.Extent.Start, d.head, d.zones, d.zone), true
	case !whole:
		return c.place(o, ExtentZones, "%d blocks at block %d are no whole zones of %d bytes", o.Extent.Blocks, o.Extent.Start, d.zone), true
	case int64(o.Extent.Blocks) < need:
		return c.place(o, ExtentSize, "%d blocks for what takes %d", o.Extent.Blocks, need), true
	}
	return Problem{}, false
}

// partner checks that the logs of a container name each other.
func (c *checker) partner(st *state, o *layout.Object) {
	if o.Partner == 0 {
		return
	}
	other, ok := st.table.Lookup(o.Partner)
	switch {
	case !ok:
		c.problem(c.place(o, PartnerLink, "the container's other log, %v, does not live", o.Partner))
	case o.Partner == o.ID || other.Partner != o.ID:
		c.problem(c.place(o, PartnerLink, "the container's other log is %v; that one's is %v", o.Partner, other.Partner))
	case other.Extent.Drive != o.Extent.Drive:
		c.problem(c.place(o, PartnerLink, "the container's other log, %v, lies on another drive, %d", o.Partner, other.Extent.Drive))
	}
}

// overlaps reports objects in each other's space and adds the space up. list is
// in order.
func (c *checker) overlaps(list []extent) {
	for i, first := 0, 0; i < len(list); i++ {
		e := &list[i]
		if e.slot != list[first].slot {
			first = i
		}
		d := c.bySlot[e.slot]
		from, end := e.start, e.start+uint64(e.blocks)
		if i > first {
			before := &list[first] // that reaches farthest
			if reach := before.start + uint64(before.blocks); reach > from {
				c.overlap(d, e, before)
				from = min(max(from, reach), end)
			}
		}
		if end > list[first].start+uint64(list[first].blocks) || i == first {
			first = i
		}
		if d != nil {
			d.use(from, end)
		}
	}
}

func (c *checker) overlap(d *drive, e, before *extent) {
	c.problem(Problem{
		Code: ExtentOverlap, Object: e.id, Device: d.path(), Offset: int64(e.start) * blockSize,
		Text: fmt.Sprintf("blocks %d to %d lie in those of object %v, %d to %d",
			e.start, e.start+uint64(e.blocks), before.id, before.start, before.start+uint64(before.blocks)),
	})
}

// use counts blocks as an object's, as far as they are in zones for objects.
func (d *drive) use(from, end uint64) {
	zb := d.zoneBlocks()
	from, end = max(from, d.head*zb), min(end, d.zones*zb)
	if from < end {
		d.live += (end - from + zb - 1) / zb
	}
}

// room checks that every object can be deleted, after a compaction: a create is
// admitted only when there is room for that.
func (c *checker) room(st *state) {
	need, n := int64(0), int64(0)
	everyObject(st.table, func(o *layout.Object) {
		need += omf.CreateBytes(len(o.Sums))
		n++
	})
	need += n * mlog.Cost(1+omf.DeleteBytes)
	if have := mlog.Usable(st.log.extent.Blocks); need > have {
		c.problem(st.log.problem(MetadataRoom, st.log.extent.Offset(), "%d objects and the deletes of them take %d bytes of %d", n, need, have))
	}
}

// births reports birth stamps that were given twice.
func (c *checker) births(st *state) {
	list := st.births
	slices.SortStableFunc(list, func(a, b birth) int {
		return cmp.Or(cmp.Compare(a.birth, b.birth), cmp.Compare(a.id, b.id))
	})
	for i := 1; i < len(list); i++ {
		a, b := &list[i-1], &list[i]
		if a.birth == b.birth && (a.id != b.id || b.strict) {
			c.problem(Problem{Code: BirthTwice, Object: b.id, Text: fmt.Sprintf("birth stamp %d was given to object %v before", b.birth, a.id)})
		}
	}
	st.births = nil
}

// roots notes those that name no object, and reports too many.
func (c *checker) roots(st *state) {
	names := make([]string, 0, len(st.roots))
	for name := range st.roots { // order does not matter: sorted below
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if id := st.roots[name]; id.Valid() {
			if _, ok := st.table.Lookup(id); !ok {
				c.note(Problem{Code: RootDangling, Object: id, Text: fmt.Sprintf("root %q names an object that does not live", name)})
			}
		}
	}
	if len(names) > api.MaxRoots {
		c.problem(Problem{Code: RootLimit, Text: fmt.Sprintf("%d roots; a pool has at most %d", len(names), api.MaxRoots)})
	}
}

// userLogs checks all mlogs, those of containers together.
func (c *checker) userLogs(ctx context.Context, st *state) error {
	var ids []layout.ObjectID
	everyObject(st.table, func(o *layout.Object) {
		if o.ID.Kind() == layout.KindMlog {
			ids = append(ids, o.ID)
		}
	})
	slices.Sort(ids)
	for _, id := range ids {
		o, _ := st.table.Lookup(id)
		other, pair := st.table.Lookup(o.Partner)
		switch {
		case !pair || other.Partner != id || other.ID == id:
			if err := c.single(ctx, &o); err != nil {
				return err
			}
		case id < other.ID:
			if err := c.pair(ctx, &o, &other); err != nil {
				return err
			}
		}
	}
	return nil
}

// logOf says where an object's log lies, or nil when it lies in no good place.
func (c *checker) logOf(o *layout.Object) *logPlace {
	if _, bad := c.misplaced(o); bad || c.bySlot[o.Extent.Drive].dev == nil {
		return nil
	}
	return &logPlace{
		dev: c.bySlot[o.Extent.Drive].dev, name: fmt.Sprintf("mlog %v", o.ID), id: o.ID,
		extent: o.Extent, birth: o.Birth, generation: o.Generation,
	}
}

// single checks a log that belongs to no container.
func (c *checker) single(ctx context.Context, o *layout.Object) error {
	l := c.logOf(o)
	if l == nil {
		return nil
	}
	s, err := c.scanLog(ctx, l)
	if err != nil {
		return err
	}
	for _, p := range s.findings {
		c.problem(p)
	}
	c.take(s)
	return nil
}

// pair checks the two logs of a container.
func (c *checker) pair(ctx context.Context, o, other *layout.Object) error {
	var logs [2]*content
	for i, o := range []*layout.Object{o, other} {
		l := c.logOf(o)
		if l == nil {
			return nil
		}
		s, err := c.scanLog(ctx, l)
		if err != nil {
			return err
		}
		if logs[i], err = c.content(ctx, s, nil); err != nil {
			return err
		}
	}
	// Of the same generation, the first log is looked at first.
	if logs[1].generation > logs[0].generation {
		c.active(logs[0], logs[1])
	} else {
		c.active(logs[1], logs[0])
	}
	return nil
}
