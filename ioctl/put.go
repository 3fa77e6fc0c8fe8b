package ioctl

import "github.com/mpool-go/mpool/api"

// MblockPut allocates an mblock, writes its data and commits it.
type MblockPut struct {
	Pool    Handle
	Options api.AllocOptions
	Data    Payload
}

func (m *MblockPut) encode(w *writer) {
	b := w.block(8 + optionsSize + windowSize)
	le.PutUint64(b[0:], uint64(m.Pool))
	putOptions(b[8:], &m.Options)
	m.Data.put(w, b[8+optionsSize:])
}

func (m *MblockPut) decode(r *reader) {
	b := r.block(8 + optionsSize + windowSize)
	m.Pool = Handle(le.Uint64(b[0:]))
	getOptions(r, b[8:], &m.Options)
	m.Data.get(r, b[8+optionsSize:])
}
