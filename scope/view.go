package scope

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// NoOrigin is the origin of a limit that no layer says: there is none.
const NoOrigin = "none"

// Entry is one kind of one scope.
type Entry struct {
	Scope   string
	Kind    Kind
	Used    int64
	Limit   string // a number, "unlimited" or "block"
	Origin  string // the layer that the limit is from, or NoOrigin
	Refused uint64 // since the scope was made
}

// LimitNumber returns the limit as a number; false: there is none.
func (e *Entry) LimitNumber() (int64, bool) {
	if e.Limit == "block" {
		return 0, true
	}
	n, err := strconv.ParseInt(e.Limit, 10, 64)
	return n, err == nil
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

// Explain returns the limits that a scope of a name has or would have, opened or not;
// also those of all whose names begin so before the colon.
func (m *Manager) Explain(name string) []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Entry, NumKinds)
	for k := range list {
		l := m.resolve(name, Kind(k))
		list[k] = Entry{Scope: name, Kind: Kind(k), Limit: l.word(), Origin: l.origin}
	}
	return list
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
