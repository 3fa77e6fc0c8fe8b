package scope

// maxIdle is how many spans of a scope are kept to be begun again.
const maxIdle = 16

// Span is a scope of a piece of work, without a name, below another one. Its Done gives
// back all that is reserved in it; what it says after that is ErrClosed. The zero Span is
// none, and not to be used. Safe for concurrent use.
type Span struct {
	s          *Scope
	generation uint64 // of s, which is another span's when this one is done
}

// BeginSpan begins a span below the scope. It may be done after the scope was closed,
// but nothing more can be reserved in it then: ErrClosed.
func (s *Scope) BeginSpan() (Span, error) { return s.begin(0) }

// BeginSpan begins a span below this one.
func (n Span) BeginSpan() (Span, error) { return n.s.begin(n.generation) }

// ReserveMemory does as [Scope.ReserveMemory].
func (n Span) ReserveMemory(bytes int64, priority uint8) error {
	return n.s.reserveOne(n.generation, Amount{Memory, bytes}, priority)
}

// ReleaseMemory gives bytes back.
func (n Span) ReleaseMemory(bytes int64) error { return n.Release(Memory, bytes) }

// Reserve does as [Scope.Reserve].
func (n Span) Reserve(k Kind, amount int64) error {
	return n.s.reserveOne(n.generation, Amount{k, amount}, MaxPriority)
}

// Release does as [Scope.Release].
func (n Span) Release(k Kind, amount int64) error {
	return n.s.releaseOne(n.generation, Amount{k, amount})
}

// ReserveAll does as [Scope.ReserveAll].
func (n Span) ReserveAll(priority uint8, amounts ...Amount) error {
	return n.s.reserveAll(n.generation, priority, amounts)
}

// ReleaseAll does as [Scope.ReleaseAll].
func (n Span) ReleaseAll(amounts ...Amount) error { return n.s.releaseAll(n.generation, amounts) }

// Used returns what the span and all below it use of a kind now; 0 when it is done and
// has nothing below it.
func (n Span) Used(k Kind) int64 {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	if n.s.generation != n.generation {
		return 0
	}
	return n.s.Used(k)
}

// begin begins a span below a span of a generation, or below a scope with a name.
func (s *Scope) begin(generation uint64) (Span, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(generation); err != nil {
		return Span{}, err
	}
	n := s.idle
	if n != nil {
		s.idle, n.prev = n.prev, nil
		s.numIdle--
	} else {
		n = &Scope{m: s.m, name: s.name, owner: s}
	}
	if n.prev = s.spans; n.prev != nil {
		n.prev.next = n
	}
	s.spans = n
	// Whoever has a span that this one was before may look at it.
	n.mu.Lock()
	n.generation++
	g := n.generation
	n.up, n.path = s.chain(), nil
	n.closed.Store(false)
	n.mu.Unlock()
	return Span{n, g}, nil
}

// Done ends a span: what is reserved in it is given back. Spans below it keep what
// they have until they are done. The second call returns ErrClosed and does nothing.
func (n Span) Done() error {
	s := n.s
	if s.used[Tasks].Load() > 0 && s.m.waiting.Load() > 0 {
		return s.m.tasks.done(n)
	}
	leaf, tasks, err := n.end()
	if err != nil {
		return err
	}
	if leaf {
		s.unlink()
	}
	if tasks {
		s.m.tasksFreed()
	}
	return nil
}

// end ends a span, and says whether nothing stands below it and whether it had tasks.
func (n Span) end() (leaf, tasks bool, err error) {
	s := n.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over(n.generation) {
		return false, false, errClosed(s)
	}
	tasks = s.end()
	return s.spans == nil, tasks, nil
}

// unlink takes a span that is done, and that nothing stands below, from its owner; and
// that from its own, if it waited for this.
func (s *Scope) unlink() {
	for s.owner != nil {
		o := s.owner
		o.mu.Lock()
		if s.prev != nil {
			s.prev.next = s.next
		}
		if s.next != nil {
			s.next.prev = s.prev
		} else {
			o.spans = s.prev
		}
		s.prev, s.next = nil, nil
		if o.numIdle < maxIdle {
			s.prev, o.idle = o.idle, s
			o.numIdle++
		}
		last := o.spans == nil && o.closed.Load()
		o.mu.Unlock()
		if !last {
			return
		}
		s = o
	}
	s.m.mu.Lock()
	s.m.drop(s)
	s.m.mu.Unlock()
}
