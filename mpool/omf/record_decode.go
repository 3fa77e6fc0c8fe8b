package omf

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/mpool-go/mpool/layout"
)

// Op is one decoded operation. Which fields count depends on Type.
type Op struct {
	Type OpType
	// Unflushed, of a create: the data was not flushed before the record. Where
	// nothing says that the record was durable, the data may not be there, and
	// then the object never was.
	Unflushed bool
	Object    layout.Object // create whole; delete, erase, update, relocate: ID, Birth and what changes
	Name      string        // root, owner; property: the label
	Index     uint32        // owner
	Parent    uint32        // owner
	Drive     Drive         // drive; without EndCopy
	Property  Property
	Value     uint32            // property that is a number
	NextID    uint64            // counter
	Birth     layout.BirthStamp // counter
}

// DecodeRecord calls f for each operation of a record, in order. The Op and its
// Object.Sums are valid during the call only; names are copies. An error of f
// ends it and is returned.
func DecodeRecord(b []byte, f func(*Op) error) error {
	if len(b) < recordHeader {
		return fmt.Errorf("%w: %d bytes", ErrBadRecord, len(b))
	}
	if b[0] != Version || b[1] != 0 {
		return fmt.Errorf("%w: version %d.%d", ErrBadRecord, b[0], b[1])
	}
	n := int(le.Uint16(b[2:]))
	b = b[recordHeader:]
	var op Op
	var sums [layout.MaxInlineSums]uint32
	for i := range n {
		if len(b) < opHeader || b[1] != 0 && (OpType(b[0]) != OpCreate || b[1] != flagUnflushed) {
			return fmt.Errorf("%w: operation %d of %d has a bad header", ErrBadRecord, i, n)
		}
		size := int(le.Uint16(b[2:]))
		if len(b) < opHeader+size {
			return fmt.Errorf("%w: operation %d of %d is cut off", ErrBadRecord, i, n)
		}
		op = Op{Type: OpType(b[0]), Unflushed: b[1] == flagUnflushed}
		if err := op.decode(b[opHeader:opHeader+size], &sums); err != nil {
			return fmt.Errorf("%w: operation %d of %d: %w", ErrBadRecord, i, n, err)
		}
		if err := f(&op); err != nil {
			return err
		}
		b = b[opHeader+size:]
	}
	if len(b) != 0 {
		return fmt.Errorf("%w: %d bytes behind the last operation", ErrBadRecord, len(b))
	}
	return nil
}

func (op *Op) decode(e []byte, sums *[layout.MaxInlineSums]uint32) error {
	o := &op.Object
	switch op.Type {
	case OpCreate:
		return op.decodeCreate(e, sums)
	case OpDelete, OpErase, OpUpdate, OpRelocate:
		if len(e) != changeBody(op.Type) {
			return errBody
		}
		o.ID, o.Birth = layout.ObjectID(le.Uint64(e)), layout.BirthStamp(le.Uint64(e[8:]))
		if !o.ID.Valid() || o.Birth == 0 {
			return fmt.Errorf("no such object id %v", o.ID)
		}
		return op.decodeChange(e)
	case OpRoot:
		if len(e) < 8+1 || len(e) > 8+64 {
			return errBody
		}
		o.ID, op.Name = layout.ObjectID(le.Uint64(e)), string(e[8:])
	case OpOwner:
		if len(e) < 8+1 || len(e) > 8+63 {
			return errBody
		}
		op.Index, op.Parent, op.Name = le.Uint32(e), le.Uint32(e[4:]), string(e[8:])
	case OpDrive:
		if len(e) != 32 || !zero(e[6:8]) {
			return errBody
		}
		op.Drive = Drive{
			Slot: le.Uint16(e), Class: e[2], State: DriveState(e[3]), ZoneLog2: e[4], SectorLog2: e[5],
			UUID: uuid.UUID(e[8:24]), Size: int64(le.Uint64(e[24:])),
		}
	case OpProperty:
		return op.decodeProperty(e)
	case OpCounter:
		if len(e) != 16 {
			return errBody
		}
		op.NextID, op.Birth = le.Uint64(e), layout.BirthStamp(le.Uint64(e[8:]))
	default:
		return fmt.Errorf("unknown type %d", op.Type)
	}
	return nil
}

// changeBody returns the size of the body of an operation on one object.
func changeBody(t OpType) int {
	switch t { //nolint:exhaustive // the others have no fixed body
	case OpDelete:
		return 16
	case OpErase:
		return 24
	default:
		return 32
	}
}

func (op *Op) decodeCreate(e []byte, sums *[layout.MaxInlineSums]uint32) error {
	if len(e) < createBody || le.Uint32(e[52:]) != 0 {
		return errBody
	}
	n := int(le.Uint16(e[18:]))
	if n > layout.MaxInlineSums || len(e) != createBody+4*n {
		return errBody
	}
	o := &op.Object
	o.ID, o.Birth = layout.ObjectID(le.Uint64(e)), layout.BirthStamp(le.Uint64(e[8:]))
	o.Extent = layout.Extent{Drive: le.Uint16(e[16:]), Blocks: le.Uint32(e[20:]), Start: le.Uint64(e[24:])}
	o.Written, o.Capacity = le.Uint64(e[32:]), le.Uint64(e[40:])
	o.Owner, o.Tag, o.Created = le.Uint32(e[48:]), le.Uint64(e[56:]), le.Uint64(e[64:])
	o.Generation, o.Partner = le.Uint64(e[72:]), layout.ObjectID(le.Uint64(e[80:]))
	for i := range n {
		sums[i] = le.Uint32(e[createBody+4*i:])
	}
	o.Sums = sums[:n]
	if !o.ID.Valid() || o.Birth == 0 || o.Extent.Blocks == 0 || o.Extent.Start > 1<<51 {
		return fmt.Errorf("object %v with an extent of %d blocks at %d", o.ID, o.Extent.Blocks, o.Extent.Start)
	}
	if o.ID.Kind() == layout.KindMblock {
		blocks := (o.Written + layout.BlockSize - 1) / layout.BlockSize
		inline := blocks <= layout.MaxInlineSums
		if op.Unflushed && n == 0 {
			return fmt.Errorf("mblock %v of %d bytes is said to be unflushed, and has no checksums here", o.ID, o.Written)
		}
		if o.Written > 1<<30 || blocks > uint64(o.Extent.Blocks) || inline && uint64(n) != blocks || !inline && n != 0 {
			return fmt.Errorf("mblock %v of %d bytes with %d checksums in %d blocks", o.ID, o.Written, n, o.Extent.Blocks)
		}
	} else if n != 0 || o.Written != 0 || o.Generation == 0 || op.Unflushed {
		return fmt.Errorf("mlog %v with %d checksums, %d bytes, generation %d", o.ID, n, o.Written, o.Generation)
	}
	return nil
}

func (op *Op) decodeChange(e []byte) error {
	o := &op.Object
	switch op.Type { //nolint:exhaustive // the others are decoded elsewhere
	case OpErase:
		o.Generation = le.Uint64(e[16:])
	case OpUpdate:
		if le.Uint32(e[20:]) != 0 {
			return errBody
		}
		o.Owner, o.Tag = le.Uint32(e[16:]), le.Uint64(e[24:])
	case OpRelocate:
		if le.Uint16(e[18:]) != 0 {
			return errBody
		}
		o.Extent = layout.Extent{Drive: le.Uint16(e[16:]), Blocks: le.Uint32(e[20:]), Start: le.Uint64(e[24:])}
		if o.Extent.Blocks == 0 || o.Extent.Start > 1<<51 {
			return errBody
		}
	}
	return nil
}

func (op *Op) decodeProperty(e []byte) error {
	if len(e) < 2 {
		return errBody
	}
	op.Property = Property(le.Uint16(e))
	switch op.Property {
	case PropLabel:
		if len(e) > 2+63 {
			return errBody
		}
		op.Name = string(e[2:])
	case PropUID, PropGID, PropMode, PropReadVerify, PropSpare, PropShared:
		if len(e) != 6 {
			return errBody
		}
		op.Value = le.Uint32(e[2:])
	default:
		return fmt.Errorf("unknown property %d", op.Property)
	}
	return nil
}
