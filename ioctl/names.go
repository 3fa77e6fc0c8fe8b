package ioctl

import (
	"fmt"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// MaxRootsBytes is the size of the longest list of roots, in bytes.
const MaxRootsBytes = 2 + api.MaxRoots*(8+2+MaxName)

// AppendRoots appends a list of roots, as RootsSet and CommitMany carry it.
func AppendRoots(dst []byte, roots []api.Root) ([]byte, error) {
	w := writer{b: dst}
	w.roots(roots, api.MaxRoots)
	return w.b, w.err
}

// ParseRoots reads what AppendRoots wrote; no bytes are no roots.
func ParseRoots(b []byte) ([]api.Root, error) {
	if len(b) == 0 {
		return nil, nil
	}
	r := reader{b: b}
	roots := r.roots(api.MaxRoots)
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	if r.err != nil {
		return nil, fmt.Errorf("list of roots: %w", r.err)
	}
	return roots, nil
}

func (w *writer) roots(roots []api.Root, limit int) {
	w.count(len(roots), limit, "list of roots")
	for _, root := range roots {
		w.b = le.AppendUint64(w.b, uint64(root.ID))
		w.str(root.Name, MaxName, "root name")
	}
}

func (r *reader) roots(limit int) []api.Root {
	n := r.count(limit, 10)
	var roots []api.Root
	for range n {
		id := layout.ObjectID(le.Uint64(r.block(8)))
		roots = append(roots, api.Root{Name: r.str(MaxName), ID: id})
	}
	return roots
}

// RootsSet sets and unsets roots; the list is its payload.
type RootsSet struct {
	Pool  Handle
	Roots Payload
}

func (m *RootsSet) encode(w *writer) {
	b := w.block(8 + windowSize)
	le.PutUint64(b[0:], uint64(m.Pool))
	m.Roots.put(w, b[8:])
}

func (m *RootsSet) decode(r *reader) {
	b := r.block(8 + windowSize)
	m.Pool = Handle(le.Uint64(b[0:]))
	m.Roots.get(r, b[8:])
}

// RootsList asks for a page of roots.
type RootsList struct {
	Pool  Handle
	After string // go on after this name
}

func (m *RootsList) encode(w *writer) {
	le.PutUint64(w.block(8), uint64(m.Pool))
	w.str(m.After, MaxName, "root name")
}

func (m *RootsList) decode(r *reader) {
	m.Pool = Handle(le.Uint64(r.block(8)))
	m.After = r.str(MaxName)
}

// RootsPerPage is how many roots a page has at most.
const RootsPerPage = 128

// RootsReply is a page of roots, sorted by name.
type RootsReply struct {
	Roots []api.Root
	More  bool // ask again with the last name
}

func (m *RootsReply) encode(w *writer) {
	w.block(8)[0] = bit(m.More, 1)
	w.roots(m.Roots, RootsPerPage)
}

func (m *RootsReply) decode(r *reader) {
	b := r.block(8)
	r.bits(b[0], 1)
	r.reserved(b[1:8])
	m.More = b[0] != 0
	m.Roots = r.roots(RootsPerPage)
}

// OwnerAdd makes an owner.
type OwnerAdd struct {
	Pool   Handle
	Parent uint32
	Name   string
}

func (m *OwnerAdd) encode(w *writer) {
	b := w.block(16)
	le.PutUint64(b[0:], uint64(m.Pool))
	le.PutUint32(b[8:], m.Parent)
	w.str(m.Name, MaxName, "owner name")
}

func (m *OwnerAdd) decode(r *reader) {
	b := r.block(16)
	m.Pool = Handle(le.Uint64(b[0:]))
	m.Parent = le.Uint32(b[8:])
	r.reserved(b[12:16])
	m.Name = r.str(MaxName)
}

// OwnerAdded gives a new owner's index.
type OwnerAdded struct{ Index uint32 }

func (m *OwnerAdded) encode(w *writer) { le.PutUint32(w.block(8), m.Index) }

func (m *OwnerAdded) decode(r *reader) {
	b := r.block(8)
	m.Index = le.Uint32(b[0:])
	r.reserved(b[4:8])
}

// OwnerList asks for a page of the owner table.
type OwnerList struct {
	Pool Handle
	From uint32 // the first index wanted
}

func (m *OwnerList) encode(w *writer) {
	b := w.block(16)
	le.PutUint64(b[0:], uint64(m.Pool))
	le.PutUint32(b[8:], m.From)
}

func (m *OwnerList) decode(r *reader) {
	b := r.block(16)
	m.Pool = Handle(le.Uint64(b[0:]))
	m.From = le.Uint32(b[8:])
	r.reserved(b[12:16])
}

// OwnersPerPage is how many owners a page has at most.
const OwnersPerPage = 128

// OwnersReply is a page of owners, sorted by index.
type OwnersReply struct {
	Owners []api.Owner
	More   bool // ask again from the index after the last
}

func (m *OwnersReply) encode(w *writer) {
	w.block(8)[0] = bit(m.More, 1)
	w.count(len(m.Owners), OwnersPerPage, "list of owners")
	for _, o := range m.Owners {
		b := w.block(8)
		le.PutUint32(b[0:], o.Index)
		le.PutUint32(b[4:], o.Parent)
		w.str(o.Name, MaxName, "owner name")
	}
}

func (m *OwnersReply) decode(r *reader) {
	b := r.block(8)
	r.bits(b[0], 1)
	r.reserved(b[1:8])
	m.More = b[0] != 0
	n := r.count(OwnersPerPage, 10)
	for range n {
		b := r.block(8)
		o := api.Owner{Index: le.Uint32(b[0:]), Parent: le.Uint32(b[4:])}
		o.Name = r.str(MaxName)
		m.Owners = append(m.Owners, o)
	}
}

// MDCCreated gives the id of a new metadata container.
type MDCCreated struct{ ID layout.ObjectID }

func (m *MDCCreated) encode(w *writer) { le.PutUint64(w.block(8), uint64(m.ID)) }
func (m *MDCCreated) decode(r *reader) { m.ID = layout.ObjectID(le.Uint64(r.block(8))) }

// MDCUsage says how full the active log is, in bytes.
type MDCUsage struct{ Used, Capacity int64 }

func (m *MDCUsage) encode(w *writer) {
	b := w.block(16)
	le.PutUint64(b[0:], uint64(m.Used))
	le.PutUint64(b[8:], uint64(m.Capacity))
}

func (m *MDCUsage) decode(r *reader) {
	b := r.block(16)
	m.Used = int64(le.Uint64(b[0:]))
	m.Capacity = int64(le.Uint64(b[8:]))
}
