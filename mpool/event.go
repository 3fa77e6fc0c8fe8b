package mpool

import "github.com/mpool-go/mpool/layout"

// EventType says what an [Event] tells.
type EventType uint8

// The types of event.
const (
	EventCorruption  EventType = iota + 1 // bytes on a drive are not what was written
	EventPoisoned                         // a failed write or flush took what was written to an object
	EventDriveFailed                      // a drive failed a write or a flush; new objects avoid it
	EventReadOnly                         // the pool is read-only from now on
)

// Event is something that whoever looks after the pool should know of. Fields
// that do not belong to its type are zero.
type Event struct {
	Type   EventType
	Object layout.ObjectID // corruption, poisoned
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
