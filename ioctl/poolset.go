package ioctl

import "github.com/mpool-go/mpool/api"

// PoolSet changes a pool's properties.
type PoolSet struct {
	Name     string
	Settings api.PoolSettings
}

const (
	poolSetSize = 16

	setUID        = 1 << 0
	setGID        = 1 << 1
	setMode       = 1 << 2
	setLabel      = 1 << 3
	setReadVerify = 1 << 4
	setSpare      = 1 << 5
	setShared     = 1 << 6
)

func (m *PoolSet) encode(w *writer) {
	b := w.block(poolSetSize)
	s := &m.Settings
	var set uint8
	if s.UID != nil {
		set |= setUID
		le.PutUint32(b[4:], *s.UID)
	}
	if s.GID != nil {
		set |= setGID
		le.PutUint32(b[8:], *s.GID)
	}
	if s.Mode != nil {
		set |= setMode
		le.PutUint32(b[12:], *s.Mode)
	}
	if s.ReadVerify != nil {
		set |= setReadVerify
		b[1] = bit(*s.ReadVerify, 1)
	}
	if s.SparePercent != nil {
		set |= setSpare
		b[2] = *s.SparePercent
	}
	if s.Shared != nil {
		set |= setShared
		b[3] = bit(*s.Shared, 1)
	}
	label := ""
	if s.Label != nil {
		set |= setLabel
		label = *s.Label
	}
	b[0] = set
	w.str(m.Name, MaxName, "pool name")
	w.str(label, MaxName, "label")
}

func (m *PoolSet) decode(r *reader) {
	b := r.block(poolSetSize)
	set := b[0]
	r.bits(set, setUID|setGID|setMode|setLabel|setReadVerify|setSpare|setShared)
	r.bits(b[1], 1)
	r.bits(b[3], 1)
	m.Name = r.str(MaxName)
	label := r.str(MaxName)
	// A value that is not set is zero.
	absent := func(bit uint8, b []byte) bool {
		if set&bit != 0 {
			return false
		}
		r.reserved(b)
		return true
	}
	s := &m.Settings
	if !absent(setUID, b[4:8]) {
		s.UID = new(le.Uint32(b[4:]))
	}
	if !absent(setGID, b[8:12]) {
		s.GID = new(le.Uint32(b[8:]))
	}
	if !absent(setMode, b[12:16]) {
		s.Mode = new(le.Uint32(b[12:]))
	}
	if !absent(setReadVerify, b[1:2]) {
		s.ReadVerify = new(b[1] != 0)
	}
	if !absent(setSpare, b[2:3]) {
		s.SparePercent = new(b[2])
	}
	if !absent(setShared, b[3:4]) {
		s.Shared = new(b[3] != 0)
	}
	if !absent(setLabel, []byte(label)) {
		s.Label = &label
	}
}
