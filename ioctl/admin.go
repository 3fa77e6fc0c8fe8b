package ioctl

import (
	"fmt"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// MaxComm is the length of the longest process name within a message, in bytes.
const MaxComm = 64

// ClientInfo is what is known of a session.
type ClientInfo struct {
	Session     uint64 // its number, from 1; never given again
	PID         int32
	UID, GID    uint32
	Comm        string // the process's name when it connected
	Connected   time.Time
	Handles     uint32 // of all kinds
	Uncommitted uint32 // uncommitted mblocks and mlogs
	Mblocks     uint32 // uncommitted mblocks
	InFlight    uint32 // requests
	Requests    uint64 // since it connected
	Memory      uint64 // bytes that the daemon holds for it: shared memory and messages
}

// ClientList asks for a page of sessions, in the order of their numbers.
type ClientList struct {
	After uint64 // go on after this session
	PID   int32  // 0: of all processes
}

func (m *ClientList) encode(w *writer) {
	b := w.block(16)
	le.PutUint64(b[0:], m.After)
	le.PutUint32(b[8:], uint32(m.PID))
}

func (m *ClientList) decode(r *reader) {
	b := r.block(16)
	m.After, m.PID = le.Uint64(b[0:]), int32(le.Uint32(b[8:]))
	r.reserved(b[12:16])
}

// ClientsPerPage is how many sessions a page has at most.
const ClientsPerPage = 128

const clientInfoSize = 64

const _ = uint(MaxMessage - HeaderSize - 10 - ClientsPerPage*(clientInfoSize+2+MaxComm))

// ClientsReply is a page of sessions.
type ClientsReply struct {
	Clients []ClientInfo
	More    bool // ask again after the last session
}

func (m *ClientsReply) encode(w *writer) {
	w.block(8)[0] = bit(m.More, 1)
	w.count(len(m.Clients), ClientsPerPage, "list of clients")
	for i := range m.Clients {
		c := &m.Clients[i]
		b := w.block(clientInfoSize)
		le.PutUint64(b[0:], c.Session)
		le.PutUint64(b[8:], uint64(c.Connected.UnixNano()))
		le.PutUint64(b[16:], c.Requests)
		le.PutUint64(b[24:], c.Memory)
		for j, v := range [...]uint32{
			uint32(c.PID), c.UID, c.GID, c.Handles, c.Uncommitted, c.Mblocks, c.InFlight,
		} {
			le.PutUint32(b[32+4*j:], v)
		}
		w.cut(c.Comm, MaxComm)
	}
}

func (m *ClientsReply) decode(r *reader) {
	b := r.block(8)
	r.bits(b[0], 1)
	r.reserved(b[1:8])
	m.More = b[0] != 0
	for range r.count(ClientsPerPage, clientInfoSize+2) {
		var c ClientInfo
		b := r.block(clientInfoSize)
		c.Session = le.Uint64(b[0:])
		c.Connected = time.Unix(0, int64(le.Uint64(b[8:]))).UTC()
		c.Requests, c.Memory = le.Uint64(b[16:]), le.Uint64(b[24:])
		c.PID = int32(le.Uint32(b[32:]))
		for j, v := range [...]*uint32{&c.UID, &c.GID, &c.Handles, &c.Uncommitted, &c.Mblocks, &c.InFlight} {
			*v = le.Uint32(b[36+4*j:])
		}
		r.reserved(b[60:64])
		c.Comm = r.str(MaxComm)
		m.Clients = append(m.Clients, c)
	}
}

// HandleKind says what a handle stands for.
type HandleKind uint8

// The kinds of handle.
const (
	HandlePool     HandleKind = 1
	HandleMblock   HandleKind = 2
	HandleMlog     HandleKind = 3
	HandleAppender HandleKind = 4 // a log open for append
	HandleReader   HandleKind = 5 // a log or container open for read
	HandleMDC      HandleKind = 6
	HandleList     HandleKind = 7 // a list of objects that is being read
)

var handleKindNames = [...]string{
	HandlePool: "pool", HandleMblock: "mblock", HandleMlog: "mlog", HandleAppender: "appender",
	HandleReader: "reader", HandleMDC: "mdc", HandleList: "list",
}

func (k HandleKind) String() string {
	if int(k) < len(handleKindNames) && handleKindNames[k] != "" {
		return handleKindNames[k]
	}
	return fmt.Sprintf("kind%d", uint8(k))
}

// HandleInfo is what is known of a handle.
type HandleInfo struct {
	Session uint64
	PID     int32
	Handle  Handle
	Kind    HandleKind
	Pool    string
	Object  layout.ObjectID // or 0
	Refs    uint32          // references on the object, of everybody
	State   api.State       // of the object; 0: none
	Granted bool            // it is offered to another process
}

// HandlesAsk asks for a page of handles, in the order of sessions, then of
// handles.
type HandlesAsk struct {
	AfterSession uint64 // go on after this handle of this session
	AfterHandle  Handle
	PID          int32  // 0: of all processes
	Pool         string // "": of all pools
}

func (m *HandlesAsk) encode(w *writer) {
	b := w.block(24)
	le.PutUint64(b[0:], m.AfterSession)
	le.PutUint64(b[8:], uint64(m.AfterHandle))
	le.PutUint32(b[16:], uint32(m.PID))
	w.str(m.Pool, MaxName, "pool name")
}

func (m *HandlesAsk) decode(r *reader) {
	b := r.block(24)
	m.AfterSession, m.AfterHandle = le.Uint64(b[0:]), Handle(le.Uint64(b[8:]))
	m.PID = int32(le.Uint32(b[16:]))
	r.reserved(b[20:24])
	m.Pool = r.str(MaxName)
}

// HandlesPerPage is how many handles a page has at most.
const HandlesPerPage = 128

const handleInfoSize = 40

const _ = uint(MaxMessage - HeaderSize - 10 - HandlesPerPage*(handleInfoSize+2+MaxName))

// HandlesReply is a page of handles.
type HandlesReply struct {
	Handles []HandleInfo
	More    bool // ask again after the last one
}

func (m *HandlesReply) encode(w *writer) {
	w.block(8)[0] = bit(m.More, 1)
	w.count(len(m.Handles), HandlesPerPage, "list of handles")
	for i := range m.Handles {
		h := &m.Handles[i]
		b := w.block(handleInfoSize)
		le.PutUint64(b[0:], h.Session)
		le.PutUint64(b[8:], uint64(h.Handle))
		le.PutUint64(b[16:], uint64(h.Object))
		le.PutUint32(b[24:], uint32(h.PID))
		le.PutUint32(b[28:], h.Refs)
		b[32], b[33], b[34] = uint8(h.Kind), uint8(h.State), bit(h.Granted, 1)
		w.str(h.Pool, MaxName, "pool name")
	}
}

func (m *HandlesReply) decode(r *reader) {
	b := r.block(8)
	r.bits(b[0], 1)
	r.reserved(b[1:8])
	m.More = b[0] != 0
	for range r.count(HandlesPerPage, handleInfoSize+2) {
		var h HandleInfo
		b := r.block(handleInfoSize)
		h.Session, h.Handle = le.Uint64(b[0:]), Handle(le.Uint64(b[8:]))
		h.Object = layout.ObjectID(le.Uint64(b[16:]))
		h.PID, h.Refs = int32(le.Uint32(b[24:])), le.Uint32(b[28:])
		h.Kind, h.State = HandleKind(b[32]), api.State(b[33])
		r.bits(b[34], 1)
		h.Granted = b[34] != 0
		r.reserved(b[35:40])
		h.Pool = r.str(MaxName)
		m.Handles = append(m.Handles, h)
	}
}
