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
	closed bool
}

// New makes a table of at most limit handles (1..MaxHandles). first is the
// generation that its slots begin with; choose it at random.
func New[T any](limit int, first uint32) *Table[T] {
	t := &Table[T]{limit: min(max(limit, 1), MaxHandles), first: first, slots: make([]slot[T], 1)}
	t.mu.Init(nil, sched.RankHandle)
	return t
}

// Add gives a handle for v. It fails with ErrFull or ErrClosed.
func (t *Table[T]) Add(kind Kind, v T) (Handle, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h, err := t.reserve(kind)
	if err == nil {
		t.fill(h, v)
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

// Fill makes a reserved handle stand for v. It fails with ErrClosed; v is then the
// caller's to release.
func (t *Table[T]) Fill(h Handle, v T) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ErrClosed
	}
	t.fill(h, v)
	return nil
}

// Unreserve gives a reserved handle up.
func (t *Table[T]) Unreserve(h Handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed { // else it went with the others
		t.live--
		t.free = append(t.free, uint32(h&slotMask))
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
	return Handle(s.generation)<<32 | Handle(kind)<<slotBits | Handle(n), nil
}

// +checklocks:t.mu
func (t *Table[T]) fill(h Handle, v T) {
	t.slots[h&slotMask].entry = &Entry[T]{Handle: h, Value: v}
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
	if n >= len(t.slots) {
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
	return e.ended && e.users == 0
}

// End ends a handle that the caller is using; it is bad from now on. It says
// whether it was still live: of callers at the same time, one gets true. The
// value is released by the last Done.
func (t *Table[T]) End(e *Entry[T]) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.ended {
		return false
	}
	t.remove(e)
	return true
}

// +checklocks:t.mu
func (t *Table[T]) remove(e *Entry[T]) {
	n := uint32(e.Handle & slotMask)
	t.slots[n].entry = nil
	e.ended = true
	t.live--
	t.free = append(t.free, n)
}

// Close ends all handles and lets none be added, nor what was reserved be filled. It returns how many there
// were and the values that nobody is using, which the caller must release; the
// others are released by their last users.
func (t *Table[T]) Close() (ended int, idle []T) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for i := range t.slots {
		e := t.slots[i].entry
		if e == nil {
			continue
		}
		if e.users == 0 {
			idle = append(idle, e.Value)
		}
		t.remove(e)
		ended++
	}
	t.live = 0 // what was reserved is given up
	t.slots, t.free = make([]slot[T], 1), nil
	return ended, idle
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
	t.mu.Lock()
	entries := make([]*Entry[T], 0, t.live)
	for i := range t.slots {
		if e := t.slots[i].entry; e != nil {
			entries = append(entries, e)
		}
	}
	t.mu.Unlock()
	for _, e := range entries {
		fn(e.Handle, e.Value)
	}
}
