package layout

import (
	"math"
	"sync/atomic"
)

// Use counts who uses an object: references (somebody may use it) and I/O pins
// (an I/O touches its extent now). The zero value has neither.
//
// References are guarded by the lock of whoever keeps the objects in use; pins
// are atomic, because reads take one each.
type Use struct {
	refs     uint32
	deleting bool

	// pins counts I/O under way; retiredBias is added when the object is
	// retired, which makes it negative.
	pins   atomic.Int64
	onIdle func()
}

// Ref takes a reference. It refuses while the object is being deleted and when
// the count would overflow.
func (u *Use) Ref() bool {
	if u.deleting || u.refs == math.MaxUint32 {
		return false
	}
	u.refs++
	return true
}

// Unref gives a reference back and returns how many are left.
func (u *Use) Unref() uint32 {
	if u.refs == 0 {
		panic("layout: a reference is given back that nobody holds")
	}
	u.refs--
	return u.refs
}

// Refs returns the number of references.
func (u *Use) Refs() uint32 { return u.refs }

// Deleting says whether a delete is under way.
func (u *Use) Deleting() bool { return u.deleting }

// StartDelete stops new references, if the only one is the caller's. It is
// undone by CancelDelete.
func (u *Use) StartDelete() bool {
	if u.deleting || u.refs != 1 {
		return false
	}
	u.deleting = true
	return true
}

// CancelDelete lets references be taken again: the object is as before.
func (u *Use) CancelDelete() { u.deleting = false }

// Pin says that an I/O touches the extent from now on. It refuses once the
// object is retired.
func (u *Use) Pin() bool {
	for {
		n := u.pins.Load()
		if n < 0 {
			return false
		}
		if u.pins.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// retiredBias marks a retired object's pins: negative, with room for any count.
const retiredBias = math.MinInt64 / 2

// Unpin says that an I/O no longer touches the extent. The last one of a
// retired object calls what Retire was given; it may run where nothing may
// block.
func (u *Use) Unpin() {
	if u.pins.Add(-1) == retiredBias {
		u.onIdle()
	}
}

// Pins returns the number of I/O under way.
func (u *Use) Pins() int64 {
	n := u.pins.Load()
	if n < 0 {
		n -= retiredBias
	}
	return n
}

// Retire refuses further pins and calls onIdle once when none is left, at once
// if there is none. It is called at most once.
func (u *Use) Retire(onIdle func()) {
	u.onIdle = onIdle
	if u.pins.Add(retiredBias) == retiredBias {
		onIdle()
	}
}
