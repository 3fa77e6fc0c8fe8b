package uhandle

import "slices"

// Close ends all handles at once, however many there are, and lets none be
// added, nor what was reserved be filled. It returns how many there were, without
// those that were reserved only; 0 if it was closed before. What they
// stood for is still to be released: what nobody is using by whoever takes it
// from [Table.Rest] or [Table.TakeOf], the rest by its last user. Each value is
// given to one of them.
func (t *Table[T]) Close() (ended int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ended = t.live - t.reserved
	t.closed, t.live, t.reserved, t.free = true, 0, 0, nil
	return ended
}

// Rest takes values of a closed table that nobody is using, most at a time, for
// the caller to release. When it returns none, there are none left.
func (t *Table[T]) Rest(most int) (values []T) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		return nil
	}
	for ; t.next < len(t.slots) && len(values) < most; t.next++ {
		if e := t.slots[t.next].entry; e != nil && e.users == 0 {
			t.remove(e)
			values = append(values, e.Value)
		}
	}
	return values
}

// TakeOf is Rest for all values of a key and one of the kinds.
func (t *Table[T]) TakeOf(key uint64, kinds ...Kind) (values []T) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		return nil
	}
	for i := t.next; i < len(t.slots); i++ {
		s := &t.slots[i]
		if s.key == key && s.entry != nil && s.entry.users == 0 && slices.Contains(kinds, s.entry.Handle.Kind()) {
			values = append(values, s.entry.Value)
			t.remove(s.entry)
		}
	}
	return values
}
