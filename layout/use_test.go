package layout

import (
	"sync"
	"sync/atomic"
	"testing"
)

// proves S30
func TestUseReferences(t *testing.T) {
	var u Use
	for range 3 {
		if !u.Ref() {
			t.Fatal("a reference was refused")
		}
	}
	if u.StartDelete() {
		t.Fatal("delete with three references")
	}
	u.Unref()
	if u.Unref() != 1 || !u.StartDelete() || u.StartDelete() || u.Ref() {
		t.Fatal("delete with the last reference must be granted once and stop references")
	}
	u.CancelDelete()
	if !u.Ref() || u.Refs() != 2 {
		t.Fatal("a cancelled delete must leave the object as it was")
	}
	u.refs = 1<<32 - 1
	if u.Ref() {
		t.Fatal("the count overflowed")
	}
}

// proves S15: an extent is given up when the last I/O has ended, and once.
func TestUsePins(t *testing.T) {
	for range 200 {
		var u Use
		var idle, inside atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 50 {
					if !u.Pin() {
						return
					}
					inside.Add(1)
					if idle.Load() != 0 {
						t.Error("pinned after the extent was given up")
					}
					inside.Add(-1)
					u.Unpin()
				}
			})
		}
		u.Retire(func() {
			if inside.Load() != 0 {
				t.Error("given up while an I/O is under way")
			}
			idle.Add(1)
		})
		wg.Wait()
		if idle.Load() != 1 || u.Pin() || u.Pins() != 0 {
			t.Fatalf("idle was called %d times, pins %d", idle.Load(), u.Pins())
		}
	}
}
