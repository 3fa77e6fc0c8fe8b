package ioctl

// MblockWrite appends to an mblock.
type MblockWrite struct {
	Mblock Handle
	// Total is what is to be written in all, by this message and those that
	// will follow it, in bytes: more than there is room for is refused at once.
	Total uint64
	Data  Payload
}

func (m *MblockWrite) encode(w *writer) {
	b := w.block(16 + windowSize)
	le.PutUint64(b[0:], uint64(m.Mblock))
	le.PutUint64(b[8:], m.Total)
	m.Data.put(w, b[16:])
}

func (m *MblockWrite) decode(r *reader) {
	b := r.block(16 + windowSize)
	m.Mblock = Handle(le.Uint64(b[0:]))
	m.Total = le.Uint64(b[8:])
	m.Data.get(r, b[16:])
}

// MblockWritten says how much was written.
type MblockWritten struct{ N uint32 }

func (m *MblockWritten) encode(w *writer) { le.PutUint32(w.block(8), m.N) }

func (m *MblockWritten) decode(r *reader) {
	b := r.block(8)
	m.N = le.Uint32(b[0:])
	r.reserved(b[4:8])
}

// MblockRead reads at an offset.
type MblockRead struct {
	Mblock Handle
	Offset int64 // bytes
	Into   Window
}

func (m *MblockRead) encode(w *writer) {
	b := w.block(16 + windowSize)
	le.PutUint64(b[0:], uint64(m.Mblock))
	le.PutUint64(b[8:], uint64(m.Offset))
	m.Into.put(b[16:])
}

func (m *MblockRead) decode(r *reader) {
	b := r.block(16 + windowSize)
	m.Mblock = Handle(le.Uint64(b[0:]))
	m.Offset = int64(le.Uint64(b[8:]))
	m.Into.get(r, b[16:])
}

// MblockReadReply says how much was read, and has it unless it went to an
// arena.
type MblockReadReply struct {
	N    uint32 // bytes
	EOF  bool   // the end was met
	Data []byte // N bytes, or none
}

const (
	readEOF    = 1 << 0
	readInline = 1 << 1
)

func (m *MblockReadReply) encode(w *writer) {
	b := w.block(8)
	le.PutUint32(b[0:], m.N)
	b[4] = bit(m.EOF, readEOF) | bit(m.Data != nil, readInline)
	w.data(m.Data, m.N)
}

func (m *MblockReadReply) decode(r *reader) {
	b := r.block(8)
	m.N = le.Uint32(b[0:])
	r.bits(b[4], readEOF|readInline)
	r.reserved(b[5:8])
	m.EOF = b[4]&readEOF != 0
	if b[4]&readInline != 0 {
		m.Data = r.data(m.N)
	}
}

// data appends a reply's data, which is n bytes or nil.
func (w *writer) data(p []byte, n uint32) {
	if p == nil {
		return
	}
	if len(p) > MaxInline || len(p) != int(n) {
		w.fail("data", len(p), MaxInline)
		return
	}
	w.b = append(w.b, p...)
}

// data takes a reply's data of n bytes.
func (r *reader) data(n uint32) []byte {
	if n > MaxInline {
		r.fail("%d bytes within a message", n)
	}
	return r.raw(int(n))
}

// AppenderOpened gives an appender's handle.
type AppenderOpened struct {
	Appender Handle
	Records  uint64 // in the log
	Bytes    int64  // of those records
}

func (m *AppenderOpened) encode(w *writer) {
	b := w.block(24)
	le.PutUint64(b[0:], uint64(m.Appender))
	le.PutUint64(b[8:], m.Records)
	le.PutUint64(b[16:], uint64(m.Bytes))
}

func (m *AppenderOpened) decode(r *reader) {
	b := r.block(24)
	m.Appender = Handle(le.Uint64(b[0:]))
	m.Records = le.Uint64(b[8:])
	m.Bytes = int64(le.Uint64(b[16:]))
}

// AppendRecord appends a record to a log or an MDC.
type AppendRecord struct {
	To   Handle // an appender or an MDC
	Sync bool
	Data Payload
}

func (m *AppendRecord) encode(w *writer) {
	b := w.block(16 + windowSize)
	le.PutUint64(b[0:], uint64(m.To))
	b[8] = bit(m.Sync, 1)
	m.Data.put(w, b[16:])
}

func (m *AppendRecord) decode(r *reader) {
	b := r.block(16 + windowSize)
	m.To = Handle(le.Uint64(b[0:]))
	r.bits(b[8], 1)
	m.Sync = b[8] != 0
	r.reserved(b[9:16])
	m.Data.get(r, b[16:])
}

// Appended says which number a record got, and how long the log is.
type Appended struct {
	Record  uint64 // its number
	Records uint64 // in the log, at least
	Bytes   int64  // of those records
}

func (m *Appended) encode(w *writer) {
	b := w.block(24)
	le.PutUint64(b[0:], m.Record)
	le.PutUint64(b[8:], m.Records)
	le.PutUint64(b[16:], uint64(m.Bytes))
}

func (m *Appended) decode(r *reader) {
	b := r.block(24)
	m.Record = le.Uint64(b[0:])
	m.Records = le.Uint64(b[8:])
	m.Bytes = int64(le.Uint64(b[16:]))
}

// MlogErase drops a log's records.
type MlogErase struct {
	Mlog          Handle
	MinGeneration uint64
}

func (m *MlogErase) encode(w *writer) {
	b := w.block(16)
	le.PutUint64(b[0:], uint64(m.Mlog))
	le.PutUint64(b[8:], m.MinGeneration)
}

func (m *MlogErase) decode(r *reader) {
	b := r.block(16)
	m.Mlog = Handle(le.Uint64(b[0:]))
	m.MinGeneration = le.Uint64(b[8:])
}

// ReadNext reads a reader's next record.
type ReadNext struct {
	Reader Handle
	Rewind bool // to the first record before
	Into   Window
}

func (m *ReadNext) encode(w *writer) {
	b := w.block(16 + windowSize)
	le.PutUint64(b[0:], uint64(m.Reader))
	b[8] = bit(m.Rewind, 1)
	m.Into.put(b[16:])
}

func (m *ReadNext) decode(r *reader) {
	b := r.block(16 + windowSize)
	m.Reader = Handle(le.Uint64(b[0:]))
	r.bits(b[8], 1)
	m.Rewind = b[8] != 0
	r.reserved(b[9:16])
	m.Into.get(r, b[16:])
}

// ReadNextReply has a record, unless it went to an arena.
type ReadNextReply struct {
	N    uint32 // bytes of the record
	EOF  bool   // there was none
	Next uint64 // number of the record that will be read next
	Data []byte // N bytes, or none
}

func (m *ReadNextReply) encode(w *writer) {
	b := w.block(16)
	le.PutUint32(b[0:], m.N)
	b[4] = bit(m.EOF, readEOF) | bit(m.Data != nil, readInline)
	le.PutUint64(b[8:], m.Next)
	w.data(m.Data, m.N)
}

func (m *ReadNextReply) decode(r *reader) {
	b := r.block(16)
	m.N = le.Uint32(b[0:])
	r.bits(b[4], readEOF|readInline)
	r.reserved(b[5:8])
	m.EOF = b[4]&readEOF != 0
	m.Next = le.Uint64(b[8:])
	if b[4]&readInline != 0 {
		m.Data = r.data(m.N)
	}
}

// ReadSeek places a reader before a record.
type ReadSeek struct {
	Reader Handle
	Record uint64
	Rewind bool // to the first record before; see api.LogReader about ESTALE
}

func (m *ReadSeek) encode(w *writer) {
	b := w.block(24)
	le.PutUint64(b[0:], uint64(m.Reader))
	le.PutUint64(b[8:], m.Record)
	b[16] = bit(m.Rewind, 1)
}

func (m *ReadSeek) decode(r *reader) {
	b := r.block(24)
	m.Reader = Handle(le.Uint64(b[0:]))
	m.Record = le.Uint64(b[8:])
	r.bits(b[16], 1)
	m.Rewind = b[16] != 0
	r.reserved(b[17:24])
}
