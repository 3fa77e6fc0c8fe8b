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
	verbAlloc
	verbPut
	verbCommit
	verbClose
)

// verbs is never written.
var verbs = [ioctl.NumOps]verb{
	ioctl.OpMblockRead: verbRead, ioctl.OpMblockWrite: verbWrite, ioctl.OpAppend: verbAppend,
	ioctl.OpMDCAppend: verbMDCAppend, ioctl.OpSync: verbSync, ioctl.OpMDCSync: verbMDCSync,
	ioctl.OpMblockAlloc: verbAlloc, ioctl.OpMblockPut: verbPut, ioctl.OpObjectCommit: verbCommit, ioctl.OpClose: verbClose,
}

// errNoVerb is a bug's: check lets no operation through that rings do not have.
const errNoVerb = "server: an operation that rings do not have"

// kinds returns the kinds of handle that a loop does an operation for; the first is
// that of most.
func (v verb) kinds() []uhandle.Kind {
	switch v {
	case verbRead, verbWrite:
		return mblockKinds[:1]
	case verbCommit, verbClose:
		return mblockKinds[:]
	case verbAppend, verbSync:
		return appenderKind[:]
	case verbMDCAppend, verbMDCSync:
		return mdcKind[:]
	case verbAlloc, verbPut:
		return poolKind[:]
	case verbNone:
	}
	panic(errNoVerb)
}

// What kinds returns; never written.
var (
	mblockKinds  = [...]uhandle.Kind{kindMblock, kindMlog}
	appenderKind = [...]uhandle.Kind{kindAppender}
	mdcKind      = [...]uhandle.Kind{kindMDC}
	poolKind     = [...]uhandle.Kind{kindPool}
)

// allocates says whether an operation makes an object. It is for a pool, and in
// no order with others.
func (v verb) allocates() bool { return v == verbAlloc || v == verbPut }

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
	case verbRead:
		offset = true
	case verbWrite:
		flags, offset = ring.FlagChained, true
	case verbAppend, verbMDCAppend:
		flags = ring.FlagSync
	case verbAlloc, verbPut:
		flags, offset = ring.FlagFallback|ring.FlagSpare, true
	case verbCommit:
		flags, offset = ring.FlagChained, d.Flags&ring.FlagChained != 0
	case verbSync, verbMDCSync, verbClose:
	}
	switch {
	case d.Flags&^flags != 0, d.Offset != 0 && !offset, d.Arena != 0 && !x.verb.hasData():
		return errFields
	case !x.verb.allocates() && (d.Class != 0 || d.Owner != 0 || d.Label != 0):
		return errFields
	case d.Arena == 0 && (d.Window != 0 || d.Length != 0):
		return errNoArena
	}
	return nil
}

// outlives says whether an operation, once begun, runs to its end although its
// session has ended, as its handler for the socket does.
func (v verb) outlives() bool { return v == verbCommit || v == verbPut }

// hasData says whether an operation has data.
func (v verb) hasData() bool {
	switch v {
	case verbRead, verbWrite, verbAppend, verbMDCAppend, verbPut:
		return true
	case verbNone, verbSync, verbMDCSync, verbAlloc, verbCommit, verbClose:
	}
	return false
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
	if err := x.askInChain(r); err != nil {
		return nil, err
	}
	record := &ioctl.AppendRecord{To: h, Sync: d.Flags&ring.FlagSync != 0, Data: ioctl.Payload{Window: w}}
	switch x.verb {
	case verbRead:
		return mblockRead(r, &ioctl.MblockRead{Mblock: h, Offset: d.Offset, Into: w})
	case verbWrite:
		return mblockWrite(r, &ioctl.MblockWrite{Mblock: h, Total: x.total(), Data: ioctl.Payload{Window: w}})
	case verbAppend:
		return appendRecord(r, record)
	case verbMDCAppend:
		return mdcAppend(r, record)
	case verbSync:
		return appenderSync(r, &ioctl.Target{Handle: h})
	case verbMDCSync:
		return ofMDC(api.MDC.Sync)(r, &ioctl.Target{Handle: h})
	case verbAlloc:
		return mblockAlloc(r, &ioctl.Alloc{Pool: h, Options: allocation(d)})
	case verbPut:
		if x.obj != nil { // it is written
			return x.commitWritten(r)
		}
		return mblockPut(r, &ioctl.MblockPut{Pool: h, Options: allocation(d), Data: ioctl.Payload{Window: w}})
	case verbCommit:
		return objectCommit(r, &ioctl.Target{Handle: h})
	case verbClose:
		return closeHandle(r, &ioctl.Target{Handle: h})
	case verbNone:
	}
	panic(errNoVerb)
}
