package ioctl

import (
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// Opened gives a handle.
type Opened struct {
	Handle Handle
	ID     layout.ObjectID // of an object, or 0
	// Created is when the object was allocated, or zero: an id that is given
	// again names another object.
	Created time.Time
}

func (m *Opened) encode(w *writer) {
	b := w.block(24)
	le.PutUint64(b[0:], uint64(m.Handle))
	le.PutUint64(b[8:], uint64(m.ID))
	if !m.Created.IsZero() {
		le.PutUint64(b[16:], uint64(m.Created.UnixNano()))
	}
}

func (m *Opened) decode(r *reader) {
	b := r.block(24)
	m.Handle = Handle(le.Uint64(b[0:]))
	m.ID = layout.ObjectID(le.Uint64(b[8:]))
	if ns := int64(le.Uint64(b[16:])); ns != 0 {
		m.Created = time.Unix(0, ns)
	}
}

// Alloc allocates an mblock, an mlog or an MDC.
type Alloc struct {
	Pool    Handle
	ID      layout.ObjectID // an mblock to allocate again, or 0
	Options api.AllocOptions
}

const (
	optionsSize = 24
	allocSize   = 16 + optionsSize

	allocFallback = 1 << 0
	allocUseSpare = 1 << 1
)

func (m *Alloc) encode(w *writer) {
	b := w.block(allocSize)
	le.PutUint64(b[0:], uint64(m.Pool))
	le.PutUint64(b[8:], uint64(m.ID))
	putOptions(b[16:], &m.Options)
}

func (m *Alloc) decode(r *reader) {
	b := r.block(allocSize)
	m.Pool = Handle(le.Uint64(b[0:]))
	m.ID = layout.ObjectID(le.Uint64(b[8:]))
	getOptions(r, b[16:], &m.Options)
}

func putOptions(b []byte, o *api.AllocOptions) {
	le.PutUint64(b[0:], uint64(o.Capacity))
	le.PutUint64(b[8:], o.Tag)
	le.PutUint32(b[16:], o.Owner)
	b[20] = uint8(o.Class)
	b[21] = bit(o.Fallback, allocFallback) | bit(o.UseSpare, allocUseSpare)
}

func getOptions(r *reader, b []byte, o *api.AllocOptions) {
	o.Capacity = int64(le.Uint64(b[0:]))
	o.Tag = le.Uint64(b[8:])
	o.Owner = le.Uint32(b[16:])
	o.Class = api.Class(b[20])
	r.bits(b[21], allocFallback|allocUseSpare)
	o.Fallback = b[21]&allocFallback != 0
	o.UseSpare = b[21]&allocUseSpare != 0
	r.reserved(b[22:24])
}

// Find names an object of a pool.
type Find struct {
	Pool Handle
	ID   layout.ObjectID
}

func (m *Find) encode(w *writer) {
	b := w.block(16)
	le.PutUint64(b[0:], uint64(m.Pool))
	le.PutUint64(b[8:], uint64(m.ID))
}

func (m *Find) decode(r *reader) {
	b := r.block(16)
	m.Pool = Handle(le.Uint64(b[0:]))
	m.ID = layout.ObjectID(le.Uint64(b[8:]))
}

// ObjectReply describes an object.
type ObjectReply struct{ Info api.ObjectInfo }

func (m *ObjectReply) encode(w *writer) { putObject(w.block(objectSize), &m.Info) }
func (m *ObjectReply) decode(r *reader) { getObject(r, r.block(objectSize), &m.Info) }

const objectSize = 88

func putObject(b []byte, i *api.ObjectInfo) {
	le.PutUint64(b[0:], uint64(i.ID))
	le.PutUint64(b[8:], uint64(i.Length))
	le.PutUint64(b[16:], uint64(i.Capacity))
	le.PutUint64(b[24:], uint64(i.Used))
	le.PutUint64(b[32:], i.Tag)
	if !i.Created.IsZero() {
		le.PutUint64(b[40:], uint64(i.Created.UnixNano()))
	}
	le.PutUint64(b[48:], i.Generation)
	le.PutUint64(b[56:], i.Records)
	le.PutUint64(b[64:], uint64(i.Partner))
	le.PutUint32(b[72:], i.Owner)
	le.PutUint32(b[76:], i.Refs)
	b[80] = uint8(i.Kind)
	b[81] = uint8(i.State)
	b[82] = uint8(i.Class)
}

func getObject(r *reader, b []byte, i *api.ObjectInfo) {
	i.ID = layout.ObjectID(le.Uint64(b[0:]))
	i.Length = int64(le.Uint64(b[8:]))
	i.Capacity = int64(le.Uint64(b[16:]))
	i.Used = int64(le.Uint64(b[24:]))
	i.Tag = le.Uint64(b[32:])
	if ns := int64(le.Uint64(b[40:])); ns != 0 {
		i.Created = time.Unix(0, ns)
	}
	i.Generation = le.Uint64(b[48:])
	i.Records = le.Uint64(b[56:])
	i.Partner = layout.ObjectID(le.Uint64(b[64:]))
	i.Owner = le.Uint32(b[72:])
	i.Refs = le.Uint32(b[76:])
	i.Kind = layout.Kind(b[80])
	i.State = api.State(b[81])
	i.Class = api.Class(b[82])
	r.reserved(b[83:88])
}

// ListOpen opens a list of objects, to be read with OpListNext.
type ListOpen struct {
	Pool   Handle
	Filter api.Filter
}

const (
	listOpenSize = 24

	filterOwner = 1 << 0
	filterTag   = 1 << 1
)

func (m *ListOpen) encode(w *writer) {
	b := w.block(listOpenSize)
	le.PutUint64(b[0:], uint64(m.Pool))
	var set uint8
	if m.Filter.Tag != nil {
		set |= filterTag
		le.PutUint64(b[8:], *m.Filter.Tag)
	}
	if m.Filter.Owner != nil {
		set |= filterOwner
		le.PutUint32(b[16:], *m.Filter.Owner)
	}
	b[20] = uint8(m.Filter.Kind)
	b[21] = uint8(m.Filter.State)
	b[22] = set
}

func (m *ListOpen) decode(r *reader) {
	b := r.block(listOpenSize)
	m.Pool = Handle(le.Uint64(b[0:]))
	set := b[22]
	r.bits(set, filterOwner|filterTag)
	r.reserved(b[23:24])
	if set&filterTag != 0 {
		m.Filter.Tag = new(le.Uint64(b[8:]))
	} else {
		r.reserved(b[8:16])
	}
	if set&filterOwner != 0 {
		m.Filter.Owner = new(le.Uint32(b[16:]))
	} else {
		r.reserved(b[16:20])
	}
	m.Filter.Kind = layout.Kind(b[20])
	m.Filter.State = api.State(b[21])
}

// ObjectsPerPage is how many objects a page has at most.
const ObjectsPerPage = 512

const _ = uint(MaxMessage - HeaderSize - 8 - 2 - ObjectsPerPage*objectSize)

// ListReply is the next page of a list.
type ListReply struct {
	Objects []api.ObjectInfo
	More    bool // there may be more
}

func (m *ListReply) encode(w *writer) {
	w.block(8)[0] = bit(m.More, 1)
	w.count(len(m.Objects), ObjectsPerPage, "list of objects")
	for i := range m.Objects {
		putObject(w.block(objectSize), &m.Objects[i])
	}
}

func (m *ListReply) decode(r *reader) {
	b := r.block(8)
	r.bits(b[0], 1)
	r.reserved(b[1:8])
	m.More = b[0] != 0
	n := r.count(ObjectsPerPage, objectSize)
	if n > 0 {
		m.Objects = make([]api.ObjectInfo, n)
	}
	for i := range m.Objects {
		getObject(r, r.block(objectSize), &m.Objects[i])
	}
}

// CommitMany commits objects together with changes of roots, which are its
// payload (see AppendRoots).
type CommitMany struct {
	Pool    Handle
	Objects []Handle
	Roots   Payload
}

func (m *CommitMany) encode(w *writer) {
	b := w.block(8 + windowSize)
	le.PutUint64(b[0:], uint64(m.Pool))
	m.Roots.Window.put(b[8:])
	w.count(len(m.Objects), api.MaxCommitMany, "list of objects")
	for _, h := range m.Objects {
		w.b = le.AppendUint64(w.b, uint64(h))
	}
	m.Roots.putInline(w)
}

func (m *CommitMany) decode(r *reader) {
	b := r.block(8 + windowSize)
	m.Pool = Handle(le.Uint64(b[0:]))
	n := r.count(api.MaxCommitMany, 8)
	if n > 0 {
		m.Objects = make([]Handle, n)
	}
	for i := range m.Objects {
		m.Objects[i] = Handle(le.Uint64(r.block(8)))
	}
	m.Roots.get(r, b[8:])
}
