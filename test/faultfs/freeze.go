package faultfs

import (
	"sync"

	"github.com/mpool-go/mpool/bdev"
)

// Freezer stops the world of some drives at one moment: it lets a number of
// writes, flushes and discards pass, over all drives that have it, and holds
// what comes after, so that who uses the drives can be killed there, and nowhere
// else. Safe for concurrent use.
type Freezer struct {
	frozen chan struct{} // closed when the first one is held
	thawed chan struct{} // closed by Thaw

	mu sync.Mutex
	// +checklocks:mu
	left int // that may still pass
	// +checklocks:mu
	passed int
	// +checklocks:mu
	held int
	// +checklocks:mu
	keep func() bool // of Thaw
}

// NewFreezer lets n operations pass.
func NewFreezer(n int) *Freezer {
	return &Freezer{frozen: make(chan struct{}), thawed: make(chan struct{}), left: n}
}

// Frozen is closed when an operation is held.
func (f *Freezer) Frozen() <-chan struct{} { return f.frozen }

// Passed says how many operations have passed.
func (f *Freezer) Passed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.passed
}

// Thaw lets the operations that are held go on if keep says so, asked once for
// each, and fails the others with EIO, undone; so also those that come later. It
// must be called once, after the process that has begun them was told to die: it
// is not dead before they have ended.
func (f *Freezer) Thaw(keep func() bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keep = keep
	close(f.thawed)
}

// pass waits, if the operation is to be held, and says whether it is to be done.
func (f *Freezer) pass(code bdev.OpCode) bool {
	if code == bdev.OpRead {
		return true
	}
	f.mu.Lock()
	if f.left > 0 {
		f.left--
		f.passed++
		f.mu.Unlock()
		return true
	}
	if f.held++; f.held == 1 {
		close(f.frozen)
	}
	f.mu.Unlock()
	<-f.thawed
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.keep()
}

// Freeze makes a freezer this drive's; nil: none.
func (d *Drive) Freeze(f *Freezer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.freezer = f
}
