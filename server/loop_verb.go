package server

import (
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
	"github.com/mpool-go/mpool/uhandle"
)

// The most bytes of a descriptor that a loop serves itself, of a read or write and
// of a record; what is longer goes to its handle's lane.
const (
	loopMaxData   = 4 << 20
	loopMaxRecord = 256 << 10
)

// verb is an operation that rings have.
type verb uint8

const (
	verbNone verb = iota
	verbRead
	verbWrite
	verbAppend
	verbMDCAppend
	verbSync
	verbMDCSync
)

// verbs is never written.
var verbs = [ioctl.NumOps]verb{
	ioctl.OpMblockRead: verbRead, ioctl.OpMblockWrite: verbWrite, ioctl.OpAppend: verbAppend,
	ioctl.OpMDCAppend: verbMDCAppend, ioctl.OpSync: verbSync, ioctl.OpMDCSync: verbMDCSync,
}

// errNoVerb is a bug's: check lets no operation through that rings do not have.
const errNoVerb = "server: an operation that rings do not have"

// kind returns the kind of handle that an operation is for.
func (v verb) kind() uhandle.Kind {
	switch v {
	case verbRead, verbWrite:
		return kindMblock
	case verbAppend, verbSync:
		return kindAppender
	case verbMDCAppend, verbMDCSync:
		return kindMDC
	case verbNone:
	}
	panic(errNoVerb)
}

// most returns how many bytes a loop serves itself.
func (v verb) most() uint32 {
	if v == verbAppend || v == verbMDCAppend {
		return loopMaxRecord
	}
	return loopMaxData
}

// check says whether a descriptor is one of this protocol.
func (x *ringOp) check() error {
	d := &x.d
	if int(d.Op) >= len(verbs) {
		return errOp
	}
	x.verb = verbs[d.Op]
	var flags uint8
	offset := false
	switch x.verb {
	case verbNone:
		return errOp
	case verbRead, verbWrite:
		offset = true
	case verbAppend, verbMDCAppend:
		flags = ring.FlagSync
	case verbSync, verbMDCSync:
		if d.Arena != 0 {
			return errFields
		}
	}
	switch {
	case d.Flags&^flags != 0, d.Offset != 0 && !offset:
		return errFields
	case d.Arena == 0 && (d.Window != 0 || d.Length != 0):
		return errNoArena
	}
	return nil
}

var (
	errOp      = errors.New("a descriptor of an operation that rings do not have")
	errFields  = errors.New("a descriptor with what its operation does not take")
	errNoArena = errors.New("a descriptor with data in no arena")
)

// ask has the handler of the operation on the socket do it.
func (x *ringOp) ask(r *request) (ioctl.Message, error) {
	d := &x.d
	h, w := ioctl.Handle(d.Handle), ioctl.Window{Arena: d.Arena, Offset: d.Window, Length: d.Length}
	record := &ioctl.AppendRecord{To: h, Sync: d.Flags&ring.FlagSync != 0, Data: ioctl.Payload{Window: w}}
	switch x.verb {
	case verbRead:
		return mblockRead(r, &ioctl.MblockRead{Mblock: h, Offset: d.Offset, Into: w})
	case verbWrite:
		return mblockWrite(r, &ioctl.MblockWrite{Mblock: h, Total: uint64(d.Offset), Data: ioctl.Payload{Window: w}})
	case verbAppend:
		return appendRecord(r, record)
	case verbMDCAppend:
		return mdcAppend(r, record)
	case verbSync:
		return appenderSync(r, &ioctl.Target{Handle: h})
	case verbMDCSync:
		return ofMDC(api.MDC.Sync)(r, &ioctl.Target{Handle: h})
	case verbNone:
	}
	panic(errNoVerb)
}
