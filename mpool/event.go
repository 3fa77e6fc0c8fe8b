package mpool

import (
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// EventType says what an [Event] tells.
type EventType uint8

// The types of event.
const (
	EventCorruption  EventType = iota + 1 // bytes on a drive are not what was written
	EventPoisoned                         // a failed write or flush took what was written to an object
	EventDriveFailed                      // a drive failed a write or a flush; new objects avoid it
	EventReadOnly                         // the pool is read-only from now on
	EventCommitCut                        // activation found a commit that a crash had cut off; the object never was
)

// Event is something that whoever looks after the pool should know of. Fields
// that do not belong to its type are zero.
type Event struct {
	Type   EventType
	Object layout.ObjectID // corruption, poisoned, commit cut
	Device string          // path
	Offset int64           // on the device, in bytes
	Err    error           // what was seen
}

// Priority says how urgent a background step is.
type Priority uint8

// The priorities.
const (
	PriorityLow  Priority = iota // may wait for hours: a scrub, say
	PriorityHigh                 // others will soon wait for it: a compaction, a discard
)

// corrupted tells of bytes that are not what was written, if that is what err
// says, which it returns.
func (p *Pool) corrupted(err error) error {
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.ECORRUPT {
		p.opt.OnEvent(Event{Type: EventCorruption, Object: e.Object, Device: e.Device, Offset: e.Offset, Err: err})
	}
	return err
}

// poisoned tells, once, that a failed write or flush took what was written to
// the object.
func (o *object) poisoned(err error) {
	if !o.told.Swap(true) {
		o.pool.opt.OnEvent(Event{Type: EventPoisoned, Object: o.id, Device: o.drive.path(), Err: err})
	}
}

// poisonedBy is poisoned for the error of an mblock's write or commit, which
// may be another than the drive's.
func (o *object) poisonedBy(err error) {
	if api.CodeOf(err) == api.EIO && !errors.Is(err, api.ETIMEDOUT) && !errors.Is(err, api.ECANCELED) {
		o.poisoned(err)
	}
}
