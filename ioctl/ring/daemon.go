package ring

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"
	"unsafe"
)

// Daemon is the daemon's end of a ring. For one goroutine at a time.
type Daemon struct {
	m      memory
	taken  uint32 // descriptors
	ended  uint32 // completions
	opened uint32 // descriptors taken and not answered
}

// NewDaemon makes the daemon's end over a ring's memory, Size(entries) bytes,
// which the client has zeroed and must stay mapped.
func NewDaemon(mem []byte, entries int) (*Daemon, error) {
	m, err := newMemory(mem, entries)
	if err != nil {
		return nil, err
	}
	return &Daemon{m: m}, nil
}

// Room returns how many descriptors may be taken now: each taken one has, from
// then on, a place for its completion. ErrBroken if the client's count of what
// it has seen cannot be true.
func (d *Daemon) Room() (int, error) {
	unseen := d.ended - d.m.word(seenAt).Load()
	if unseen > d.m.entries {
		return 0, fmt.Errorf("%w: %d completions not seen, of %d entries", ErrBroken, int32(unseen), d.m.entries)
	}
	if used := unseen + d.opened; used < d.m.entries {
		return int(d.m.entries - used), nil
	}
	return 0, nil
}

// Ready returns how many descriptors the client has filled and nobody has
// taken. ErrBroken if that cannot be true.
func (d *Daemon) Ready() (int, error) {
	n := d.m.word(submittedAt).Load() - d.taken
	if n > d.m.entries {
		return 0, fmt.Errorf("%w: %d descriptors filled, of %d entries", ErrBroken, int32(n), d.m.entries)
	}
	return int(n), nil
}

// Take copies the next descriptor out. The caller knows by Ready and Room that
// there is one and that it may be taken. It must be answered once: by Complete
// or Fail.
func (d *Daemon) Take(x *Descriptor) error {
	ok := x.get(d.m.descriptor(d.taken))
	d.taken++
	d.opened++
	d.m.word(takenAt).Store(d.taken)
	if !ok {
		return fmt.Errorf("%w: a descriptor whose reserved bytes are not zero", ErrBroken)
	}
	return nil
}

// Complete answers a descriptor. The client sees it at once if it looks; Notify
// wakes one that sleeps.
func (d *Daemon) Complete(c *Completion) {
	c.put(d.m.completion(d.ended))
	d.ended++
	d.opened--
	d.m.word(endedAt).Store(d.ended)
}

// Fail says that a descriptor is answered on the socket.
func (d *Daemon) Fail() { d.opened-- }

// Open returns how many descriptors are taken and not answered.
func (d *Daemon) Open() int { return int(d.opened) }

// Notify wakes the client if it sleeps and what it sleeps for is there, and says
// whether it did: once for any number of completions.
func (d *Daemon) Notify() bool {
	w := d.m.word(waiterAt)
	if w.Load() == 0 || int32(d.ended-d.m.word(wantedAt).Load()) < 0 {
		return false
	}
	w.Store(0)
	wake(w, 1)
	return true
}

// Doze announces that the daemon will sleep, and returns the word to wait for
// as long as it holds 1. If there is work after all it returns nil, and the
// daemon does not sleep.
func (d *Daemon) Doze() *uint32 {
	w := d.m.word(bellAt)
	w.Store(1)
	if d.m.word(submittedAt).Load() != d.taken {
		w.Store(0)
		return nil
	}
	return raw(w)
}

// Rise says that the daemon is awake: nobody needs to ring. A wait for Doze's
// word may go on; it ends by the next bell after the next Doze.
func (d *Daemon) Rise() { d.m.word(bellAt).Store(0) }

// Listen waits for Doze's word as long as it holds 1, and no longer than d. It is
// for a kernel whose io_uring cannot, and may run beside the daemon's other calls.
// It may return for no reason; late says that the time was up. Without such an end
// a hostile client could have the thread wait for ever: see EndWait.
func Listen(word *uint32, d time.Duration) (late bool) {
	return wait((*atomic.Uint32)(unsafe.Pointer(word)), 1, d)
}

// EndWait ends a wait for Doze's word that is under way, whoever waits. A wait
// that the kernel has not seen yet may begin after it, if a hostile client sets
// the word again. One that such a client had the kernel take to another word
// (FUTEX_CMP_REQUEUE), or whose wake-up it is in the way of (FUTEX_LOCK_PI), does
// not end by this: who waits has another way out.
func (d *Daemon) EndWait() {
	w := d.m.word(bellAt)
	w.Store(0)
	wake(w, math.MaxInt32)
}
