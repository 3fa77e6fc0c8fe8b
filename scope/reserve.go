package scope

import "fmt"

// ReserveMemory reserves n bytes. It is refused if then more than
// limit × (1 + priority) / 256 were used, of any scope from this one up: 255 may use all,
// 127 half. The refusal is a *LimitError, and changes nothing.
func (s *Scope) ReserveMemory(n int64, priority uint8) error {
	return s.reserveOne(0, Amount{Memory, n}, priority)
}

// ReleaseMemory gives n bytes back.
func (s *Scope) ReleaseMemory(n int64) error { return s.Release(Memory, n) }

// Reserve reserves n of a kind, in this scope and all above it or nowhere. The refusal
// is a *LimitError, and changes nothing.
func (s *Scope) Reserve(k Kind, n int64) error { return s.reserveOne(0, Amount{k, n}, MaxPriority) }

// Release gives n of a kind back, of what was reserved in this scope itself. More than
// that is ErrNotReserved and gives nothing back.
func (s *Scope) Release(k Kind, n int64) error { return s.releaseOne(0, Amount{k, n}) }

// ReserveAll reserves several amounts, NumKinds at most, all or none; memory with the
// priority.
func (s *Scope) ReserveAll(priority uint8, amounts ...Amount) error {
	return s.reserveAll(0, priority, amounts)
}

// ReleaseAll gives several amounts back, NumKinds at most, all or none.
func (s *Scope) ReleaseAll(amounts ...Amount) error { return s.releaseAll(0, amounts) }

func (s *Scope) reserveOne(generation uint64, a Amount, priority uint8) error {
	var buf [2]Amount
	list, err := a.add(buf[:0])
	if err != nil {
		return err
	}
	return s.reserve(generation, list, priority)
}

func (s *Scope) releaseOne(generation uint64, a Amount) error {
	var buf [2]Amount
	list, err := a.add(buf[:0])
	if err != nil {
		return err
	}
	return s.release(generation, list)
}

func (s *Scope) reserveAll(generation uint64, priority uint8, amounts []Amount) error {
	var buf [2 * NumKinds]Amount
	list, err := join(buf[:0], amounts)
	if err != nil {
		return err
	}
	return s.reserve(generation, list, priority)
}

func (s *Scope) releaseAll(generation uint64, amounts []Amount) error {
	var buf [2 * NumKinds]Amount
	list, err := join(buf[:0], amounts)
	if err != nil {
		return err
	}
	return s.release(generation, list)
}

// join appends amounts to a list that has room for NumKinds of them and their totals.
func join(list, amounts []Amount) ([]Amount, error) {
	if len(amounts) > NumKinds {
		return nil, fmt.Errorf("%w: %d amounts at once: at most %d", ErrInvalid, len(amounts), NumKinds)
	}
	for _, a := range amounts {
		var err error
		if list, err = a.add(list); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// reserve takes what add has made.
func (s *Scope) reserve(generation uint64, list []Amount, priority uint8) error {
	var r refusal
	if counts(list, Tasks) && s.m.waiting.Load() > 0 {
		if err := s.m.tasks.reserve(s, generation, list, priority, &r); err != nil || r.at == nil {
			return err
		}
		return r.tell()
	}
	err := s.tryReserve(generation, list, priority, &r)
	if err != nil || r.at == nil {
		return err
	}
	if counts(list, Tasks) {
		s.m.tasksFreed() // those that saw a scope below full for that moment
	}
	return r.tell()
}

// counts says whether a list has something of a kind.
func counts(list []Amount, k Kind) bool {
	for _, a := range list {
		if a.Kind == k {
			return true
		}
	}
	return false
}

// tryReserve takes what add has made, or says in r what was refused of it.
func (s *Scope) tryReserve(generation uint64, list []Amount, priority uint8, r *refusal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(generation); err != nil {
		return err
	}
	if !s.take(list, priority, r) {
		return nil
	}
	for j, a := range s.up {
		if a.take(list, priority, r) {
			continue
		}
		for _, b := range s.up[:j] {
			b.give(list)
		}
		s.give(list)
		return nil
	}
	for _, a := range list {
		s.own[a.Kind] += a.N
	}
	return nil
}

// release gives back what add has made.
func (s *Scope) release(generation uint64, list []Amount) error {
	if counts(list, Tasks) && s.m.waiting.Load() > 0 {
		return s.m.tasks.release(s, generation, list)
	}
	tasks, err := s.tryRelease(generation, list)
	if tasks {
		s.m.tasksFreed()
	}
	return err
}

func (s *Scope) tryRelease(generation uint64, list []Amount) (tasks bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over(generation) {
		return false, errClosed(s)
	}
	for i, a := range list {
		if s.own[a.Kind] >= a.N {
			s.own[a.Kind] -= a.N
			continue
		}
		for _, b := range list[:i] {
			s.own[b.Kind] += b.N
		}
		return false, fmt.Errorf("%w: %d of %v are to be released in scope %s, which has %d itself",
			ErrNotReserved, a.N, a.Kind, s.name, s.own[a.Kind])
	}
	s.give(list)
	for _, a := range s.up {
		a.give(list)
	}
	return counts(list, Tasks), nil
}

// take counts all of a list, or nothing and says in r what is too much.
func (s *Scope) take(list []Amount, priority uint8, r *refusal) bool {
	for i, a := range list {
		if !s.takeOne(a, priority, r) {
			s.give(list[:i])
			return false
		}
	}
	return true
}

func (s *Scope) takeOne(a Amount, priority uint8, r *refusal) bool {
	whole := int64(unlimited)
	if s.book != nil {
		whole = s.book.n[a.Kind].Load()
	}
	limit := whole
	switch {
	case a.Kind == Memory:
		limit = share(whole, priority)
	case a.Kind >= TasksHigh:
		limit -= s.kept[a.Kind-TasksHigh].Load()
	}
	c := &s.used[a.Kind]
	for {
		u := c.Load()
		if a.N > limit-u { // neither is negative: it cannot overflow
			if a.N == 0 {
				return true
			}
			*r = refusal{at: s, what: a, used: u, limit: max(limit, 0), whole: whole}
			return false
		}
		if c.CompareAndSwap(u, u+a.N) {
			return true
		}
	}
}

// give counts all of a list out.
func (s *Scope) give(list []Amount) {
	for _, a := range list {
		s.sub(a.Kind, a.N)
	}
}

func (s *Scope) sub(k Kind, n int64) {
	if s.used[k].Add(-n) < 0 {
		panic(fmt.Sprintf("scope %s: less than nothing of %v is used", s.name, k))
	}
}

// Charge makes what the scope itself holds of Memory or Descriptors n, whatever the limits
// are: for what is used already and was not asked for, and so counts before anything is
// granted. Above the limit, it refuses what is new until it fits again. Less can be
// charged, as released, also below a scope that is closed.
func (s *Scope) Charge(k Kind, n int64) error {
	var buf [2]Amount
	if _, err := (Amount{k, n}).add(buf[:0]); err != nil {
		return err
	}
	if k != Memory && k != Descriptors {
		return fmt.Errorf("%w: %v is not charged: it is reserved", ErrInvalid, k)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	more := n - s.own[k]
	if s.over(0) {
		return errClosed(s)
	}
	if more <= 0 {
		s.own[k] = n
		for _, a := range s.chain() {
			a.sub(k, -more)
		}
		return nil
	}
	if err := s.usable(0); err != nil {
		return err
	}
	for i, a := range s.chain() {
		if a.charge(k, more) {
			continue
		}
		for _, b := range s.chain()[:i] {
			b.sub(k, more)
		}
		return fmt.Errorf("%w: %d of %v is more than can be counted in scope %s", ErrInvalid, n, k, a.name)
	}
	s.own[k] = n
	return nil
}

// charge counts n, if that can be counted, whatever the limit is.
func (s *Scope) charge(k Kind, n int64) bool {
	for {
		u := s.used[k].Load()
		if n > unlimited-u {
			return false
		}
		if s.used[k].CompareAndSwap(u, u+n) {
			return true
		}
	}
}
