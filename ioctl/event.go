package ioctl

import (
	"fmt"
	"time"

	"github.com/mpool-go/mpool/layout"
)

// EventType says what happened.
type EventType uint8

// The types of event.
const (
	EventPoolActivated   EventType = 1
	EventPoolDeactivated EventType = 2 // also by destruction
	EventClientReaped    EventType = 3
	EventCorruption      EventType = 4 // bytes on a drive are not what was written
	EventPoisoned        EventType = 5 // a failed write or flush took what was written to an object
	EventDriveFailed     EventType = 6
	EventPoolReadOnly    EventType = 7
	EventOverQuota       EventType = 8
	EventRevoked         EventType = 9
	EventCommitCut       EventType = 10 // a crash had cut a commit off; activation dropped what it left
)

var eventTypeNames = [...]string{
	EventPoolActivated: "pool_activated", EventPoolDeactivated: "pool_deactivated",
	EventClientReaped: "client_reaped", EventCorruption: "corruption", EventPoisoned: "poisoned",
	EventDriveFailed: "drive_failed", EventPoolReadOnly: "pool_read_only",
	EventOverQuota: "over_quota", EventRevoked: "revoked",
	EventCommitCut: "commit_cut",
}

func (t EventType) String() string {
	if int(t) < len(eventTypeNames) && eventTypeNames[t] != "" {
		return eventTypeNames[t]
	}
	return fmt.Sprintf("event%d", uint8(t))
}

// Cause says how a client ended.
type Cause uint8

// The causes.
const (
	CauseUnknown Cause = 0
	CauseExit    Cause = 1 // Event.Code has the exit code
	CauseSignal  Cause = 2 // Event.Signal has the signal
	CauseClosed  Cause = 3 // it closed its connection and may live
)

func (c Cause) String() string {
	switch c {
	case CauseExit:
		return "exit"
	case CauseSignal:
		return "signal"
	case CauseClosed:
		return "closed"
	case CauseUnknown:
	}
	return "unknown"
}

// Source says by what the end of a client was noticed.
type Source uint8

// The sources.
const (
	SourceNone     Source = 0
	SourceSocket   Source = 1 // the socket ended
	SourcePidfd    Source = 2 // the process died
	SourceBPF      Source = 3 // the same, by the exit tracepoint
	SourceProtocol Source = 4 // the client broke the protocol
	SourceShutdown Source = 5 // the daemon stops
)

var sourceNames = [...]string{
	SourceSocket: "socket", SourcePidfd: "pidfd", SourceBPF: "bpf", SourceProtocol: "protocol",
	SourceShutdown: "shutdown",
}

func (s Source) String() string {
	if int(s) < len(sourceNames) {
		return sourceNames[s]
	}
	return fmt.Sprintf("source%d", uint8(s))
}

// Event is something that an administrator should know of. Fields that do not
// belong to its type are zero.
type Event struct {
	Seq    uint64 // rises by one from event to event, from 1
	Time   time.Time
	Type   EventType
	Pool   string          // its name
	Object layout.ObjectID // corruption, poisoned
	Device string          // path
	Offset int64           // on the device, in bytes
	Text   string          // one sentence; cut at MaxText

	// Of a client.
	Session      uint64
	PID          int32
	UID          uint32
	Comm         string
	Cause        Cause
	Code         int32 // exit code
	Signal       int32
	Core         bool // a core was dumped
	DetectedBy   Source
	Aborted      uint32 // uncommitted objects
	References   uint32 // handles given back
	Reservations uint32
	Credits      uint32
	Latency      time.Duration // from notice to release

	// In ns of CLOCK_MONOTONIC, which all processes of a machine have in common. Exit
	// is when the process's last thread began to exit, by the kernel's tracepoint; 0:
	// not known. Free is when the last of its handles had ended: who asks from then on
	// meets none of its references but those that requests under way and logs that are
	// being closed still use.
	Exit, Free int64
}

// EventNext asks for events; it is answered when there is one, or when the wait
// is over, then with none.
type EventNext struct {
	After uint64    // events with higher numbers
	Since time.Time // and not before this; the zero time: any
	Wait  uint32    // milliseconds; 0: do not wait. At most MaxEventWait.
}

// MaxEventWait bounds EventNext.Wait, in milliseconds: ask again.
const MaxEventWait = 60_000

func (m *EventNext) encode(w *writer) {
	b := w.block(24)
	le.PutUint64(b[0:], m.After)
	if !m.Since.IsZero() {
		le.PutUint64(b[8:], uint64(m.Since.UnixNano()))
	}
	le.PutUint32(b[16:], m.Wait)
}

func (m *EventNext) decode(r *reader) {
	b := r.block(24)
	m.After = le.Uint64(b[0:])
	if ns := int64(le.Uint64(b[8:])); ns != 0 {
		m.Since = time.Unix(0, ns).UTC()
	}
	m.Wait = le.Uint32(b[16:])
	r.reserved(b[20:24])
	if m.Wait > MaxEventWait {
		r.fail("a wait of %d ms", m.Wait)
	}
}

// EventsPerPage is how many events a page has at most.
const EventsPerPage = 24

const eventSize = 112

const _ = uint(MaxMessage - HeaderSize - 18 - EventsPerPage*(eventSize+8+MaxName+MaxComm+MaxText+MaxPath))

// EventsReply has events in the order of their numbers.
type EventsReply struct {
	Events []Event
	Last   uint64 // ask for events after this number
	Missed uint64 // events between the one asked for and these that are not kept any more
}

func (m *EventsReply) encode(w *writer) {
	b := w.block(16)
	le.PutUint64(b[0:], m.Last)
	le.PutUint64(b[8:], m.Missed)
	w.count(len(m.Events), EventsPerPage, "list of events")
	for i := range m.Events {
		m.Events[i].encode(w)
	}
}

func (m *EventsReply) decode(r *reader) {
	b := r.block(16)
	m.Last, m.Missed = le.Uint64(b[0:]), le.Uint64(b[8:])
	for range r.count(EventsPerPage, eventSize+8) {
		var e Event
		e.decode(r)
		m.Events = append(m.Events, e)
	}
}

func (e *Event) encode(w *writer) {
	b := w.block(eventSize)
	le.PutUint64(b[0:], e.Seq)
	le.PutUint64(b[8:], uint64(e.Time.UnixNano()))
	le.PutUint64(b[16:], uint64(e.Object))
	le.PutUint64(b[24:], uint64(e.Offset))
	le.PutUint64(b[32:], e.Session)
	le.PutUint64(b[40:], uint64(e.Latency))
	for j, v := range [...]uint32{
		uint32(e.PID), e.UID, uint32(e.Code), uint32(e.Signal), e.Aborted, e.References, e.Reservations, e.Credits,
	} {
		le.PutUint32(b[48+4*j:], v)
	}
	b[80], b[81], b[82], b[83] = uint8(e.Type), uint8(e.Cause), uint8(e.DetectedBy), bit(e.Core, 1)
	le.PutUint64(b[96:], uint64(e.Exit))
	le.PutUint64(b[104:], uint64(e.Free))
	w.str(e.Pool, MaxName, "pool name")
	w.cut(e.Device, MaxPath)
	w.cut(e.Comm, MaxComm)
	w.cut(e.Text, MaxText)
}

func (e *Event) decode(r *reader) {
	b := r.block(eventSize)
	e.Seq = le.Uint64(b[0:])
	e.Time = time.Unix(0, int64(le.Uint64(b[8:]))).UTC()
	e.Object = layout.ObjectID(le.Uint64(b[16:]))
	e.Offset = int64(le.Uint64(b[24:]))
	e.Session = le.Uint64(b[32:])
	e.Latency = time.Duration(le.Uint64(b[40:]))
	e.PID, e.UID = int32(le.Uint32(b[48:])), le.Uint32(b[52:])
	e.Code, e.Signal = int32(le.Uint32(b[56:])), int32(le.Uint32(b[60:]))
	e.Aborted, e.References = le.Uint32(b[64:]), le.Uint32(b[68:])
	e.Reservations, e.Credits = le.Uint32(b[72:]), le.Uint32(b[76:])
	e.Type, e.Cause, e.DetectedBy = EventType(b[80]), Cause(b[81]), Source(b[82])
	r.bits(b[83], 1)
	e.Core = b[83] != 0
	r.reserved(b[84:96])
	e.Exit, e.Free = int64(le.Uint64(b[96:])), int64(le.Uint64(b[104:]))
	e.Pool, e.Device = r.str(MaxName), r.str(MaxPath)
	e.Comm, e.Text = r.str(MaxComm), r.str(MaxText)
}
