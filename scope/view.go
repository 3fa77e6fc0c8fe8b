package scope

import (
	"cmp"
	"fmt"
	"slices"
)

// Entry is one kind of one scope.
type Entry struct {
	Scope   string
	Kind    Kind
	Used    int64
	Limit   string // a number, "unlimited" or "block"
	Origin  string // the layer that the limit is from; "none": no layer says one
	Refused uint64 // since the scope was made
}

// List returns all kinds of all scopes with names, System first, the others by name.
// Each number is that of its moment.
func (m *Manager) List() []Entry {
	m.mu.Lock()
	scopes := make([]*Scope, 0, len(m.names))
	for _, s := range m.names { // order does not matter: sorted below
		scopes = append(scopes, s)
	}
	m.mu.Unlock()
	slices.SortFunc(scopes, func(a, b *Scope) int {
		return cmp.Or(cmp.Compare(min(a.order, 3), min(b.order, 3)), cmp.Compare(a.name, b.name))
	})
	list := make([]Entry, 0, len(scopes)*NumKinds)
	for _, s := range scopes {
		list = s.entries(list)
	}
	return list
}

// Show returns all kinds of the scope of a name, or ErrNotFound.
func (m *Manager) Show(name string) ([]Entry, error) {
	m.mu.Lock()
	s := m.names[name]
	m.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	return s.entries(nil), nil
}

func (s *Scope) entries(list []Entry) []Entry {
	for k := range NumKinds {
		l := s.book.what[k].Load()
		list = append(list, Entry{
			Scope: s.name, Kind: Kind(k), Used: s.used[k].Load(),
			Limit: l.word(), Origin: l.origin, Refused: s.book.refused[k].Load(),
		})
	}
	return list
}
