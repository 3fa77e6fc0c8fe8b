package daemon

import (
	"bytes"
	"sync"
)

// Buffer keeps what is written to it. Safe for concurrent use; the zero value is
// empty.
type Buffer struct {
	mu sync.Mutex
	// +checklocks:mu
	b bytes.Buffer
}

// Write implements [io.Writer].
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns what was written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
