package uhandle

import (
	"errors"

	"github.com/mpool-go/mpool/sched"
)

// Handle is a handle's number. Zero is never given.
type Handle uint64

// Kind says what sort of thing a handle stands for. Zero is none.
type Kind uint8

// Kind returns the kind that the number claims.
func (h Handle) Kind() Kind { return Kind(h >> slotBits) }

const (
	slotBits = 24
	slotMask = 1<<slotBits - 1

	// MaxHandles is the most handles a table can have at one time.
	MaxHandles = slotMask
)

var (
	// ErrBad is returned for a handle that does not stand for anything of the
	// kind that was asked for.
	ErrBad = errors.New("bad handle")
	// ErrFull is returned when the table has as many handles as it may.
	ErrFull = errors.New("too many handles")
	// ErrClosed is returned when the table has been closed.
	ErrClosed = errors.New("handle table closed")
	// ErrInUse is returned when somebody is using the handle.
	ErrInUse = errors.New("handle in use")
)

// Entry is a handle in use: see [Table.Use].
type Entry[T any] struct {
	Handle Handle
	Value  T

	users int  // guarded by the table's mu
	ended bool // guarded by the table's mu
}

type slot[T any] struct {
	generation uint32
	entry      *Entry[T] // nil: free, or reserved
	key        uint64    // of entry
}

// Table is one process's handles. Safe for concurrent use.
type Table[T any] struct {
	limit int
	first uint32 // generation of a new slot

	mu sched.Mutex
	// +checklocks:mu
	slots []slot[T] // by slot number; slot 0 is never used
	// +checklocks:mu
	free []uint32 // slots to be given again, the longest free first
	// +checklocks:mu
	live int
	// +checklocks:mu
	reserved int // of live, those that stand for nothing yet
	// +checklocks:mu
	closed bool
	// +checklocks:mu
	next int // of slots, for Rest
}

// New makes a table of at most limit handles (1..MaxHandles). first is the
// generation that its slots begin with; choose it at random.
func New[T any](limit int, first uint32) *Table[T] {
	t := &Table[T]{limit: min(max(limit, 1), MaxHandles), first: first, slots: make([]slot[T], 1)}
	t.mu.Init(nil, sched.RankHandle)
	return t
}

// Add gives a handle for v. key says what v stands for, as TakeOf and EachOf ask
// for it; several may have the same. It fails with ErrFull or ErrClosed.
func (t *Table[T]) Add(kind Kind, key uint64, v T) (Handle, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h, err := t.reserve(kind)
	if err == nil {
		t.fill(h, key, v)
	}
	return h, err
}

// Reserve gives a handle that stands for nothing yet, and is bad until [Table.Fill]
// or for ever after [Table.Unreserve], one of which must follow. It fails with
// ErrFull or ErrClosed.
func (t *Table[T]) Reserve(kind Kind) (Handle, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reserve(kind)
}

// Fill makes a reserved handle stand for v, as Add does. It fails with ErrClosed; v
// is then the caller's to release.
func (t *Table[T]) Fill(h Handle, key uint64, v T) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ErrClosed
	}
	t.fill(h, key, v)
	return nil
}

// Unreserve gives a reserved handle up.
func (t *Table[T]) Unreserve(h Handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed { // else it went with the others
		t.reserved--
		t.release(h)
	}
}

// Take ends a handle that nobody is using and returns its value, which is the
// caller's then: to release, or to put into another table. Before, it asks may,
// which must neither wait nor use a table; nothing is begun with the handle
// meanwhile, and an error of its keeps the handle and is returned. It fails with
// ErrBad or ErrInUse. Of a Take and a Close at the same time one gets the value.
func (t *Table[T]) Take(h Handle, may func(T) error) (T, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var none T
	e := t.lookup(h, []Kind{h.Kind()})
	switch {
	case e == nil:
		return none, ErrBad
	case e.users > 0:
		return none, ErrInUse
	}
	if err := may(e.Value); err != nil {
		return none, err
	}
	t.remove(e)
	t.release(h)
	return e.Value, nil
}

// +checklocks:t.mu
func (t *Table[T]) reserve(kind Kind) (Handle, error) {
	switch {
	case t.closed:
		return 0, ErrClosed
	case t.live >= t.limit:
		return 0, ErrFull
	}
	n := t.takeSlot()
	s := &t.slots[n]
	s.generation++
	if s.generation == 0 {
		s.generation = 1 // so that no handle is 0
	}
	t.live++
	t.reserved++
	return Handle(s.generation)<<32 | Handle(kind)<<slotBits | Handle(n), nil
}

// +checklocks:t.mu
func (t *Table[T]) fill(h Handle, key uint64, v T) {
	s := &t.slots[h&slotMask]
	s.entry, s.key = &Entry[T]{Handle: h, Value: v}, key
	t.reserved--
}

// takeSlot returns a free slot. It makes new ones while there are few free
// ones, so that a number comes back late.
//
// +checklocks:t.mu
func (t *Table[T]) takeSlot() uint32 {
	const reuseAfter = 64
	if len(t.free) > 0 && (len(t.free) >= reuseAfter || len(t.slots) > t.limit) {
		n := t.free[0]
		t.free = t.free[1:]
		return n
	}
	t.slots = append(t.slots, slot[T]{generation: t.first})
	return uint32(len(t.slots) - 1)
}

// lookup returns the entry of a live handle of one of the kinds.
//
// +checklocks:t.mu
func (t *Table[T]) lookup(h Handle, kinds []Kind) *Entry[T] {
	n := int(h & slotMask)
	if t.closed || n >= len(t.slots) {
		return nil
	}
	e := t.slots[n].entry
	if e == nil || e.Handle != h {
		return nil
	}
	for _, k := range kinds {
		if k == h.Kind() {
			return e
		}
	}
	return nil
}

// Use looks a handle up and keeps its value from being released until
// [Table.Done]. It fails with ErrBad unless the handle is of one of the kinds.
func (t *Table[T]) Use(h Handle, kinds ...Kind) (*Entry[T], error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.lookup(h, kinds)
	if e == nil {
		return nil, ErrBad
	}
	e.users++
	return e, nil
}

// Done ends a use. If it returns true the handle was ended meanwhile and this
// was its last user, who must now release the value.
func (t *Table[T]) Done(e *Entry[T]) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.users--
	if e.users > 0 {
		return false
	}
	if t.closed && !e.ended {
		t.remove(e)
	}
	return e.ended
}

// End ends a handle that the caller is using; it is bad from now on. It says
// whether it was still live: of callers at the same time, one gets true. The
// value is released by the last Done.
func (t *Table[T]) End(e *Entry[T]) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.ended || t.closed {
		return false
	}
	t.remove(e)
	t.release(e.Handle)
	return true
}

// remove ends an entry and takes it out of its slot.
//
// +checklocks:t.mu
func (t *Table[T]) remove(e *Entry[T]) {
	s := &t.slots[e.Handle&slotMask]
	s.entry, s.key = nil, 0
	e.ended = true
}

// release makes a handle's slot free.
//
// +checklocks:t.mu
func (t *Table[T]) release(h Handle) {
	t.live--
	t.free = append(t.free, uint32(h&slotMask))
}

// Len returns how many handles there are, with those that are reserved.
func (t *Table[T]) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live
}

// Each calls fn for every live handle, in no order that matters, without
// holding the table: the value may be released meanwhile.
func (t *Table[T]) Each(fn func(Handle, T)) {
	for _, e := range t.entries(func(uint64) bool { return true }) {
		fn(e.Handle, e.Value)
	}
}

// EachOf is Each for the handles of one key.
func (t *Table[T]) EachOf(key uint64, fn func(Handle, T)) {
	for _, e := range t.entries(func(k uint64) bool { return k == key }) {
		fn(e.Handle, e.Value)
	}
}

// entries returns the live handles whose key is chosen.
func (t *Table[T]) entries(chosen func(uint64) bool) (list []*Entry[T]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	for i := range t.slots {
		if s := &t.slots[i]; s.entry != nil && chosen(s.key) {
			list = append(list, s.entry)
		}
	}
	return list
}
