package scope

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// deadline is until when a connection may stay in Transient.
type deadline struct{ at time.Time }

// OpenConnection opens the scope of a connection, Inbound or Outbound, with what it
// takes to begin: amounts besides itself. It stands below Transient until it is moved
// below its client, until the deadline at the latest: a Move from Transient after that is
// ErrExpired. The name is not to be that of an open scope. Close ends it, wherever it
// stands.
func (m *Manager) OpenConnection(name string, direction Kind, until time.Time, amounts ...Amount) (*Scope, error) {
	if direction != Inbound && direction != Outbound {
		return nil, fmt.Errorf("%w: a connection is inbound or outbound, not %v", ErrInvalid, direction)
	}
	m.mu.Lock()
	if m.names[name] != nil || name == "" {
		m.mu.Unlock()
		return nil, fmt.Errorf("%w: connection %q is open already", ErrInvalid, name)
	}
	s := m.make(name, m.transient)
	s.conn = &deadline{until}
	m.mu.Unlock()
	if err := s.ReserveAll(MaxPriority, append([]Amount{{direction, 1}}, amounts...)...); err != nil {
		_ = s.Close() // nobody else has it
		return nil, err
	}
	return s, nil
}

// late says whether a scope was to have left Transient before. The manager's mu is held.
func (s *Scope) late(now time.Time) bool { return s.conn != nil && now.After(s.conn.at) }

// Expired returns the connections whose deadline in Transient has passed, for whoever
// made them to close.
func (m *Manager) Expired() []*Scope {
	now := m.opt.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*Scope
	for s := range m.transient.children { // order does not matter: sorted below
		if s.late(now) {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *Scope) int { return strings.Compare(a.name, b.name) })
	return list
}
