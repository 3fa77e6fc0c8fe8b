package ioctl

import (
	"time"

	"github.com/mpool-go/mpool/api"
)

// Grant offers an uncommitted object to another process.
type Grant struct {
	Object Handle
	TTL    time.Duration
}

func (m *Grant) encode(w *writer) {
	b := w.block(16)
	le.PutUint64(b[0:], uint64(m.Object))
	le.PutUint64(b[8:], uint64(m.TTL))
}

func (m *Grant) decode(r *reader) {
	b := r.block(16)
	m.Object = Handle(le.Uint64(b[0:]))
	m.TTL = time.Duration(le.Uint64(b[8:]))
}

// Granted gives the token to show.
type Granted struct{ Token api.Token }

func (m *Granted) encode(w *writer) { copy(w.block(api.TokenSize), m.Token[:]) }
func (m *Granted) decode(r *reader) { copy(m.Token[:], r.block(api.TokenSize)) }

// Accept takes over an object that was granted.
type Accept struct {
	Pool  Handle
	Token api.Token
}

func (m *Accept) encode(w *writer) {
	b := w.block(8 + api.TokenSize)
	le.PutUint64(b[0:], uint64(m.Pool))
	copy(b[8:], m.Token[:])
}

func (m *Accept) decode(r *reader) {
	b := r.block(8 + api.TokenSize)
	m.Pool = Handle(le.Uint64(b[0:]))
	copy(m.Token[:], b[8:])
}
