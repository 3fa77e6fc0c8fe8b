package omf

import (
	"errors"

	"github.com/mpool-go/mpool/layout"
)

// OpType is the type of an operation. The numbers are part of the format.
type OpType uint8

// The operations.
const (
	OpCreate   OpType = 1
	OpDelete   OpType = 2
	OpErase    OpType = 3
	OpUpdate   OpType = 4
	OpRelocate OpType = 5
	OpRoot     OpType = 6
	OpOwner    OpType = 7
	OpDrive    OpType = 8
	OpProperty OpType = 9
	OpCounter  OpType = 10
)

// Property is the key of a pool's property.
type Property uint16

// The properties. Values: numbers are 4 bytes, the label is its bytes.
const (
	PropUID        Property = 1
	PropGID        Property = 2
	PropMode       Property = 3
	PropLabel      Property = 4
	PropReadVerify Property = 5 // 0 or 1
	PropSpare      Property = 6 // percent
	PropShared     Property = 7 // 0 or 1; without it 0
)

// Sizes in bytes.
const (
	recordHeader = 4
	opHeader     = 4
	createBody   = 88
	// MaxRecordOps bounds the operations of one record.
	MaxRecordOps = 4096
	// DeleteBytes is the size of a record that deletes one object.
	DeleteBytes = recordHeader + opHeader + 16
)

// CreateBytes returns the size of the create operation of an object with n
// inline checksums.
func CreateBytes(n int) int64 { return opHeader + createBody + 4*int64(n) }

// ErrBadRecord is returned for a metadata record that breaks the format.
var ErrBadRecord = errors.New("malformed metadata record")

// Record is a transaction being built. The zero value is an empty one.
type Record struct {
	b     []byte
	count int
}

// Bytes returns the encoded record, valid until the next call.
func (r *Record) Bytes() []byte {
	if len(r.b) == 0 {
		r.b = append(r.b, 0, 0, 0, 0)
	}
	r.b[0] = Version
	le.PutUint16(r.b[2:], uint16(r.count))
	return r.b
}

// Len returns the encoded size so far, in bytes.
func (r *Record) Len() int { return max(len(r.b), recordHeader) }

// Count returns how many operations the record has.
func (r *Record) Count() int { return r.count }

// Reset empties the record and keeps its memory.
func (r *Record) Reset() { r.b, r.count = r.b[:0], 0 }

// op appends an operation's header and n zero bytes of body, which it returns.
func (r *Record) op(t OpType, n int) []byte {
	if cap(r.b) == 0 { // most records have one operation
		r.b = make([]byte, 0, recordHeader+opHeader+n)
	}
	if len(r.b) == 0 {
		r.b = append(r.b, 0, 0, 0, 0)
	}
	at := len(r.b)
	r.b = append(r.b, make([]byte, opHeader+n)...)
	r.b[at] = uint8(t)
	le.PutUint16(r.b[at+2:], uint16(n))
	r.count++
	return r.b[at+opHeader:]
}

// flagUnflushed in the header of a create says that the data was written, but
// not flushed, before the record was.
const flagUnflushed = 1

// CreateUnflushed is Create of an mblock with inline checksums whose data becomes
// durable only with the record: a crash may leave the record without the data.
func (r *Record) CreateUnflushed(o *layout.Object) {
	at := r.Len()
	r.Create(o)
	r.b[at+1] = flagUnflushed
}

// Create adds an object.
func (r *Record) Create(o *layout.Object) {
	e := r.op(OpCreate, createBody+4*len(o.Sums))
	le.PutUint64(e, uint64(o.ID))
	le.PutUint64(e[8:], uint64(o.Birth))
	le.PutUint16(e[16:], o.Extent.Drive)
	le.PutUint16(e[18:], uint16(len(o.Sums)))
	le.PutUint32(e[20:], o.Extent.Blocks)
	le.PutUint64(e[24:], o.Extent.Start)
	le.PutUint64(e[32:], o.Written)
	le.PutUint64(e[40:], o.Capacity)
	le.PutUint32(e[48:], o.Owner)
	le.PutUint64(e[56:], o.Tag)
	le.PutUint64(e[64:], o.Created)
	le.PutUint64(e[72:], o.Generation)
	le.PutUint64(e[80:], uint64(o.Partner))
	for i, s := range o.Sums {
		le.PutUint32(e[createBody+4*i:], s)
	}
}

// Delete removes an object.
func (r *Record) Delete(id layout.ObjectID, birth layout.BirthStamp) {
	e := r.op(OpDelete, 16)
	le.PutUint64(e, uint64(id))
	le.PutUint64(e[8:], uint64(birth))
}

// Erase raises a log's generation.
func (r *Record) Erase(id layout.ObjectID, birth layout.BirthStamp, generation uint64) {
	e := r.op(OpErase, 24)
	le.PutUint64(e, uint64(id))
	le.PutUint64(e[8:], uint64(birth))
	le.PutUint64(e[16:], generation)
}

// Update changes an object's owner and tag.
func (r *Record) Update(id layout.ObjectID, birth layout.BirthStamp, owner uint32, tag uint64) {
	e := r.op(OpUpdate, 32)
	le.PutUint64(e, uint64(id))
	le.PutUint64(e[8:], uint64(birth))
	le.PutUint32(e[16:], owner)
	le.PutUint64(e[24:], tag)
}

// Relocate moves an object to another extent.
func (r *Record) Relocate(id layout.ObjectID, birth layout.BirthStamp, to layout.Extent) {
	e := r.op(OpRelocate, 32)
	le.PutUint64(e, uint64(id))
	le.PutUint64(e[8:], uint64(birth))
	le.PutUint16(e[16:], to.Drive)
	le.PutUint32(e[20:], to.Blocks)
	le.PutUint64(e[24:], to.Start)
}

// Root sets a named root, or unsets it when id is 0.
func (r *Record) Root(name string, id layout.ObjectID) {
	e := r.op(OpRoot, 8+len(name))
	le.PutUint64(e, uint64(id))
	copy(e[8:], name)
}

// Owner adds an entry of the owner table.
func (r *Record) Owner(index, parent uint32, name string) {
	e := r.op(OpOwner, 8+len(name))
	le.PutUint32(e, index)
	le.PutUint32(e[4:], parent)
	copy(e[8:], name)
}

// Drive adds or changes a drive. The superblock's table is what counts; the
// record says when.
func (r *Record) Drive(d *Drive) {
	e := r.op(OpDrive, 32)
	le.PutUint16(e, d.Slot)
	e[2], e[3], e[4], e[5] = d.Class, uint8(d.State), d.ZoneLog2, d.SectorLog2
	copy(e[8:], d.UUID[:])
	le.PutUint64(e[24:], uint64(d.Size))
}

// PropertyNumber sets a property that is a number.
func (r *Record) PropertyNumber(key Property, value uint32) {
	e := r.op(OpProperty, 6)
	le.PutUint16(e, uint16(key))
	le.PutUint32(e[2:], value)
}

// PropertyText sets a property that is text.
func (r *Record) PropertyText(key Property, value string) {
	e := r.op(OpProperty, 2+len(value))
	le.PutUint16(e, uint16(key))
	copy(e[2:], value)
}

// Counter promises that ids and birth stamps from these on are not given yet.
func (r *Record) Counter(nextID uint64, nextBirth layout.BirthStamp) {
	e := r.op(OpCounter, 16)
	le.PutUint64(e, nextID)
	le.PutUint64(e[8:], uint64(nextBirth))
}

var errBody = errors.New("body of a wrong size or with bytes that must be zero")
