package ioctl

// Handle names something a session holds. Zero is none.
type Handle uint64

// Limits of strings and lists.
const (
	MaxName    = 255  // bytes of a pool's, root's or owner's name and of a label
	MaxText    = 1024 // bytes of free text: an error's sentence, a version
	MaxPath    = 512  // bytes of a device's path
	MaxDevices = 64   // in one request, over all its lists
)

// Empty is a body without fields.
type Empty struct{}

func (*Empty) encode(*writer) {}
func (*Empty) decode(*reader) {}

// Features are bits of what a peer knows beyond the version; those that both know
// count.
const (
	FeatureRefusal uint64 = 1 << 0 // errors tell of the limit that refuses
	FeaturePacked  uint64 = 1 << 1 // a message of OpCredit may have several of owners
	FeatureLimit   uint64 = 1 << 2 // a refusal in OpCredit tells of the limit

	Features = FeatureRefusal | FeaturePacked | FeatureLimit // all that there are
)

// Hello is a session's first message.
type Hello struct {
	MinVersion, MaxVersion uint16 // what the client speaks
	Features               uint64 // those that the client knows
}

const helloSize = 16

func (m *Hello) encode(w *writer) {
	b := w.block(helloSize)
	le.PutUint16(b[0:], m.MinVersion)
	le.PutUint16(b[2:], m.MaxVersion)
	le.PutUint64(b[8:], m.Features)
}

func (m *Hello) decode(r *reader) {
	b := r.block(helloSize)
	m.MinVersion = le.Uint16(b[0:])
	m.MaxVersion = le.Uint16(b[2:])
	r.reserved(b[4:8])
	m.Features = le.Uint64(b[8:])
}

// HelloReply says what holds for the session.
type HelloReply struct {
	Version      uint16 // spoken from now on
	Features     uint64 // known to both
	MaxRequests  uint32 // in flight; the daemon stops reading beyond
	MaxHandles   uint32
	MaxArenas    uint32
	ArenaDefault uint64 // bytes
	ArenaTotal   uint64 // bytes of all the session's arenas at most
	Instance     uint64 // of the daemon: another one after a restart
	Session      uint64 // the session's number, as in ClientInfo
}

const helloReplySize = 56

func (m *HelloReply) encode(w *writer) {
	b := w.block(helloReplySize)
	le.PutUint16(b[0:], m.Version)
	le.PutUint32(b[4:], m.MaxRequests)
	le.PutUint64(b[8:], m.Features)
	le.PutUint32(b[16:], m.MaxHandles)
	le.PutUint32(b[20:], m.MaxArenas)
	le.PutUint64(b[24:], m.ArenaDefault)
	le.PutUint64(b[32:], m.ArenaTotal)
	le.PutUint64(b[40:], m.Instance)
	le.PutUint64(b[48:], m.Session)
}

func (m *HelloReply) decode(r *reader) {
	b := r.block(helloReplySize)
	m.Version = le.Uint16(b[0:])
	r.reserved(b[2:4])
	m.MaxRequests = le.Uint32(b[4:])
	m.Features = le.Uint64(b[8:])
	m.MaxHandles = le.Uint32(b[16:])
	m.MaxArenas = le.Uint32(b[20:])
	m.ArenaDefault = le.Uint64(b[24:])
	m.ArenaTotal = le.Uint64(b[32:])
	m.Instance = le.Uint64(b[40:])
	m.Session = le.Uint64(b[48:])
}

// Cancel says that the client no longer waits for a request. It has no reply;
// the request it names is still answered.
type Cancel struct{ Tag uint64 }

func (m *Cancel) encode(w *writer) { le.PutUint64(w.block(8), m.Tag) }
func (m *Cancel) decode(r *reader) { m.Tag = le.Uint64(r.block(8)) }

// ArenaAsk asks for a memory file.
type ArenaAsk struct{ Size uint64 } // bytes, a multiple of ArenaAlign; 0: the default

func (m *ArenaAsk) encode(w *writer) { le.PutUint64(w.block(8), m.Size) }
func (m *ArenaAsk) decode(r *reader) { m.Size = le.Uint64(r.block(8)) }

// ArenaReply comes with the memory file's descriptor. The client maps all of it
// and sends ArenaMapped; until that is answered no request may use it.
type ArenaReply struct {
	Arena uint16 // its number in the session, from 1
	Size  uint64 // bytes
}

func (m *ArenaReply) encode(w *writer) {
	b := w.block(16)
	le.PutUint16(b[0:], m.Arena)
	le.PutUint64(b[8:], m.Size)
}

func (m *ArenaReply) decode(r *reader) {
	b := r.block(16)
	m.Arena = le.Uint16(b[0:])
	r.reserved(b[2:8])
	m.Size = le.Uint64(b[8:])
}

// ArenaMapped says that the client has mapped an arena.
type ArenaMapped struct{ Arena uint16 }

func (m *ArenaMapped) encode(w *writer) { le.PutUint16(w.block(8), m.Arena) }

func (m *ArenaMapped) decode(r *reader) {
	b := r.block(8)
	m.Arena = le.Uint16(b[0:])
	r.reserved(b[2:8])
}

// MaxRings is how many rings a session may have at one time.
const MaxRings = 8

// RingAsk makes a piece of an arena a ring, in the form of package ring: version
// 1. The client has filled the piece with zeros, and uses it for nothing else
// until RingClose is answered. The operations that may go through it are
// OpMblockRead, OpMblockWrite, OpAppend, OpSync, OpMDCAppend and OpMDCSync. A
// daemon that has no rings says ENOTSUP.
type RingAsk struct {
	Version uint16 // of the form
	Arena   uint16
	Offset  uint32 // into the arena, a multiple of ArenaAlign
	Entries uint32
}

func (m *RingAsk) encode(w *writer) {
	b := w.block(16)
	le.PutUint16(b[0:], m.Version)
	le.PutUint16(b[2:], m.Arena)
	le.PutUint32(b[4:], m.Offset)
	le.PutUint32(b[8:], m.Entries)
}

func (m *RingAsk) decode(r *reader) {
	b := r.block(16)
	m.Version = le.Uint16(b[0:])
	m.Arena = le.Uint16(b[2:])
	m.Offset = le.Uint32(b[4:])
	m.Entries = le.Uint32(b[8:])
	r.reserved(b[12:16])
}

// RingReply says which ring it is. The daemon looks at the ring from then on.
type RingReply struct {
	Ring uint16 // its number in the session, from 1
}

func (m *RingReply) encode(w *writer) { le.PutUint16(w.block(8), m.Ring) }

func (m *RingReply) decode(r *reader) {
	b := r.block(8)
	m.Ring = le.Uint16(b[0:])
	r.reserved(b[2:8])
}

// RingClose ends a ring. It is answered when the daemon looks at the ring no
// more and every descriptor that it has taken is answered.
type RingClose struct{ Ring uint16 }

func (m *RingClose) encode(w *writer) { le.PutUint16(w.block(8), m.Ring) }

func (m *RingClose) decode(r *reader) {
	b := r.block(8)
	m.Ring = le.Uint16(b[0:])
	r.reserved(b[2:8])
}

// VersionReply says what the daemon is.
type VersionReply struct {
	Daemon   string // its version
	Go       string // what built it
	Protocol uint16
	PID      int32
}

func (m *VersionReply) encode(w *writer) {
	b := w.block(8)
	le.PutUint16(b[0:], m.Protocol)
	le.PutUint32(b[4:], uint32(m.PID))
	w.cut(m.Daemon, MaxText)
	w.cut(m.Go, MaxText)
}

func (m *VersionReply) decode(r *reader) {
	b := r.block(8)
	m.Protocol = le.Uint16(b[0:])
	r.reserved(b[2:4])
	m.PID = int32(le.Uint32(b[4:]))
	m.Daemon = r.str(MaxText)
	m.Go = r.str(MaxText)
}

// Target is a request with nothing but the handle it is about.
type Target struct{ Handle Handle }

func (m *Target) encode(w *writer) { le.PutUint64(w.block(8), uint64(m.Handle)) }
func (m *Target) decode(r *reader) { m.Handle = Handle(le.Uint64(r.block(8))) }

// Window is where data lies or goes: in an arena, or in the message.
type Window struct {
	Arena  uint16 // 0: in the message, the request's or the reply's
	Offset uint32 // into the arena, a multiple of ArenaAlign; 0 without one
	Length uint32 // bytes
}

const windowSize = 12

func (m *Window) put(b []byte) {
	le.PutUint16(b[0:], m.Arena)
	le.PutUint32(b[4:], m.Offset)
	le.PutUint32(b[8:], m.Length)
}

func (m *Window) get(r *reader, b []byte) {
	m.Arena = le.Uint16(b[0:])
	r.reserved(b[2:4])
	m.Offset = le.Uint32(b[4:])
	m.Length = le.Uint32(b[8:])
	if m.Arena == 0 && (m.Offset != 0 || m.Length > MaxInline) {
		r.fail("%d bytes at %d within a message", m.Length, m.Offset)
	}
}

// Payload is data that a request carries: Inline if Window.Arena is 0.
type Payload struct {
	Window
	Inline []byte // Window.Length bytes
}

// InlinePayload makes the payload of data within the message.
func InlinePayload(p []byte) Payload {
	return Payload{Window: Window{Length: uint32(len(p))}, Inline: p}
}

// put writes the window into b and appends the data; it comes last.
func (m *Payload) put(w *writer, b []byte) {
	m.Window.put(b)
	m.putInline(w)
}

func (m *Payload) putInline(w *writer) {
	switch {
	case m.Arena != 0:
	case len(m.Inline) > MaxInline || len(m.Inline) != int(m.Length):
		w.fail("data", len(m.Inline), MaxInline)
	default:
		w.b = append(w.b, m.Inline...)
	}
}

func (m *Payload) get(r *reader, b []byte) {
	m.Window.get(r, b)
	if m.Arena == 0 {
		m.Inline = r.raw(int(m.Length))
	}
}
