package quota

import (
	"context"
	"sync"
)

// Memory is a [Store] in memory, which ends with its process.
type Memory struct {
	mu sync.Mutex
	// +checklocks:mu
	books *Books
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	m := &Memory{}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.books = NewBooks()
	return m
}

// View implements [Store].
func (m *Memory) View(ctx context.Context, f func(Reader)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m.books)
	return nil
}

// Apply implements [Store].
func (m *Memory) Apply(ctx context.Context, expect Generation, changes []Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.books.Generation() != expect:
		return ErrConflict
	case len(changes) == 0:
		return nil
	}
	return m.books.Apply(changes)
}
