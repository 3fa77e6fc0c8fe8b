package check

import (
	"fmt"
	"slices"

	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/omf"
)

// Bounds of properties and of the owner table.
const (
	maxMode   = 0o777
	maxSpare  = 50 // percent
	maxOwners = 1 << 16
)

// state is what a metadata log says of a pool, one operation after the other.
//
// Up to the end mark a log was written by a compaction, with the changes that
// went on meanwhile between: what it says of one object may come twice, and a
// change may come before what it changes. Behind the end mark every operation
// was made against the state that the log says until there, and must fit it.
type state struct {
	log    *logPlace
	strict bool // behind the end mark

	table      *layout.Table
	roots      map[string]layout.ObjectID
	owners     []owner // by index
	properties map[omf.Property]property
	nextID     uint64
	nextBirth  layout.BirthStamp
	births     []birth // all that were ever given, as far as the log says

	scan     *scan           // of the log, while it is taken in
	doubtful []layout.Object // created without a flush of their data, in records that may not have been durable
	record   uint64          // number of the one that is taken in
	content  *content        // of the log, when it ended
	former   *state          // by the log that this one replaced, until they are compared
	findings []Problem
}

type owner struct {
	parent uint32
	name   string
}

type property struct {
	number uint32
	text   string
}

// birth is a create.
type birth struct {
	birth  layout.BirthStamp
	id     layout.ObjectID
	strict bool
}

func newState(l *logPlace) *state {
	return &state{
		log: l, table: layout.NewTable(nil), roots: make(map[string]layout.ObjectID),
		owners: make([]owner, 1), properties: make(map[omf.Property]property),
	}
}

func (s *state) find(code string, id layout.ObjectID, format string, args ...any) {
	if len(s.findings) == MaxFindings {
		return
	}
	p := s.log.problem(code, s.log.extent.Offset(), "record %d: %s", s.record, fmt.Sprintf(format, args...))
	p.Object = id
	s.findings = append(s.findings, p)
}

// data takes in a record.
func (s *state) data(number uint64, record []byte) {
	s.record = number
	err := omf.DecodeRecord(record, func(op *omf.Op) error {
		s.apply(op)
		if op.Unflushed && s.scan != nil && number >= s.scan.sure {
			o := op.Object
			o.Sums = slices.Clone(o.Sums)
			s.doubtful = append(s.doubtful, o)
		}
		return nil
	})
	if err != nil {
		s.find(RecordMalformed, 0, "%v", err)
	}
}

// start takes in the start mark.
func (s *state) start(l *content) { s.scan = l.scan }

// end takes in the end mark.
func (s *state) end(l *content) {
	s.strict = true
	s.record = l.records - 1
	if f := s.former; f != nil && f.content != nil && f.content.generation == l.replaces && f.content.records == l.carried {
		s.compare(f)
	}
	s.former = nil
}

func (s *state) apply(op *omf.Op) {
	o := &op.Object
	switch op.Type {
	case omf.OpCreate:
		s.create(o)
	case omf.OpDelete:
		if _, ok := s.present(o, DeleteAbsent, "delete"); ok {
			s.table.Delete(o.ID)
		}
	case omf.OpErase:
		s.erase(o)
	case omf.OpUpdate:
		if _, ok := s.present(o, ChangeAbsent, "update"); ok {
			s.table.Update(o.ID, func(e *layout.Object) { e.Owner, e.Tag = o.Owner, o.Tag })
		}
	case omf.OpRelocate:
		if _, ok := s.present(o, ChangeAbsent, "relocate"); ok {
			s.table.Update(o.ID, func(e *layout.Object) { e.Extent = o.Extent })
		}
	case omf.OpRoot:
		s.root(op)
	case omf.OpOwner:
		s.owner(op)
	case omf.OpProperty:
		s.property(op)
	case omf.OpCounter:
		if s.strict && (op.NextID < s.nextID || op.Birth < s.nextBirth) {
			s.find(CounterBack, 0, "the counters go back from %d and %d to %d and %d", s.nextID, s.nextBirth, op.NextID, op.Birth)
		}
		s.nextID, s.nextBirth = max(s.nextID, op.NextID), max(s.nextBirth, op.Birth)
	case omf.OpDrive: // history: the superblock's table counts
	}
}

func (s *state) create(o *layout.Object) {
	now, lives := s.table.Lookup(o.ID)
	switch {
	case lives && (s.strict || now.Birth != o.Birth):
		s.find(CreateExists, o.ID, "creates an object that lives, birth stamp %d, with birth stamp %d", now.Birth, o.Birth)
	case s.strict && (o.ID.Counter() >= s.nextID || o.Birth >= s.nextBirth):
		s.find(CounterAbove, o.ID, "id or birth stamp %d is not below the counters %d and %d of that moment", o.Birth, s.nextID, s.nextBirth)
	}
	s.births = append(s.births, birth{birth: o.Birth, id: o.ID, strict: s.strict})
	s.table.Upsert(*o)
}

// present says whether the object that an operation changes is there.
func (s *state) present(o *layout.Object, code, what string) (layout.Object, bool) {
	now, lives := s.table.Lookup(o.ID)
	switch {
	case lives && now.Birth == o.Birth:
		return now, true
	case lives:
		s.find(code, o.ID, "%s of an object with birth stamp %d; the one that lives has %d", what, o.Birth, now.Birth)
	case s.strict:
		s.find(code, o.ID, "%s of an object that does not live", what)
	}
	return now, false
}

func (s *state) erase(o *layout.Object) {
	now, ok := s.present(o, ChangeAbsent, "erase")
	switch {
	case !ok:
		return
	case o.ID.Kind() != layout.KindMlog:
		s.find(ObjectFields, o.ID, "erases an mblock")
		return
	case s.strict && o.Generation <= now.Generation:
		s.find(EraseBack, o.ID, "erases from generation %d to %d", now.Generation, o.Generation)
	}
	s.table.Update(o.ID, func(e *layout.Object) { e.Generation = o.Generation })
}

func (s *state) root(op *omf.Op) {
	id := op.Object.ID
	if id != 0 {
		if !id.Valid() {
			s.find(RecordMalformed, id, "root %q names what can be no object", op.Name)
		}
		s.roots[op.Name] = id
		return
	}
	if _, ok := s.roots[op.Name]; !ok && s.strict {
		s.find(DeleteAbsent, 0, "unsets root %q, which is not set", op.Name)
	}
	delete(s.roots, op.Name)
}

func (s *state) owner(op *omf.Op) {
	o := owner{parent: op.Parent, name: op.Name}
	n := uint32(len(s.owners))
	switch {
	case op.Index > n || op.Index == 0 || op.Index >= maxOwners || op.Parent >= op.Index:
		s.find(OwnerOrder, 0, "owner %d of parent %d comes when there are %d", op.Index, op.Parent, n)
	case op.Index == n:
		s.owners = append(s.owners, o)
	case s.strict || s.owners[op.Index] != o:
		s.find(OwnerOrder, 0, "owner %d is there already", op.Index)
	}
}

func (s *state) property(op *omf.Op) {
	bad := false
	switch op.Property {
	case omf.PropMode:
		bad = op.Value > maxMode
	case omf.PropReadVerify, omf.PropShared:
		bad = op.Value > 1
	case omf.PropSpare:
		bad = op.Value > maxSpare
	case omf.PropUID, omf.PropGID, omf.PropLabel:
	}
	if bad {
		s.find(PropertyValue, 0, "property %d has the value %d", op.Property, op.Value)
	}
	s.properties[op.Property] = property{number: op.Value, text: op.Name}
}
