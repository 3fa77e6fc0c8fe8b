package client

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
)

// CreditOptions are the options of a connection that takes credits itself.
type CreditOptions struct {
	// Cached is how many objects of a pool the connection keeps credits of that
	// nobody holds, so that the next one who asks need not ask the daemon; those
	// used longest ago are given back. 0: 4096; negative: none.
	Cached int
	// Bytes is how many bytes of committed mblocks the connection keeps in this
	// process's memory, under read credits, for reads. 0: none.
	Bytes int64
}

// defaultCached is CreditOptions.Cached when it is 0.
const defaultCached = 4096

// CreditModes is a set of modes of a credit.
type CreditModes = credit.Modes

// The modes of a credit on an object; they may be joined with |.
const (
	CreditRead   = credit.Read
	CreditAppend = credit.Append
	CreditWrite  = credit.Write
	CreditDelete = credit.Delete
)

// CreditRequest says which credit is wanted on an object.
type CreditRequest struct {
	Modes CreditModes
	// Offset and Length say on which bytes. Length 0: to the end of the object,
	// wherever that will be. Append and delete are asked for on the whole object
	// whatever they say.
	Offset, Length int64
	// Try has the request refused, EBUSY, if somebody holds what conflicts. What
	// conflicts and is only cached is called back all the same.
	Try bool
	// Local has the request refused, EAGAIN, if what is wanted is not cached here.
	Local bool
}

// Hold is a credit that the program holds. Others who want what conflicts wait
// until it is released, or have it taken at the call-back's deadline. Its methods
// are safe for concurrent use.
type Hold struct {
	h       *credit.Hold
	c       *credits
	k       *known
	version credit.Version
	open    bool        // it is of a handle
	once    atomic.Bool // released
}

// Token returns what the daemon compares: the greater one is the later one.
func (h *Hold) Token() credit.Token { return h.h.Token() }

// Credit returns what is held.
func (h *Hold) Credit() credit.Credit { return h.h.Credit() }

// Session returns the number of the session that holds it, as the daemon's lists have
// it; 0: the daemon did not say.
func (h *Hold) Session() uint64 { return h.c.session }

// Version returns which contents the object had when the credit was granted: a copy
// of an equal version has them. Of an mblock it is that of its making, and stays as
// long as the credit is held or cached. Of a log it is its generation and how many bytes
// of it are durable; beside who may but read it others append to it and erase it, so a read credit tells that only
// if the daemon was asked for it just now: what is cached is given back before by
// GiveBackCredit. Zero: not known, and equal to none, as of a log that nobody has open,
// of what is not committed, and of what this connection itself changes: while it has the
// log open for append, or until all that it holds of what it has deleted or erased is
// released.
func (h *Hold) Version() credit.Version { return h.version }

// Wanted is closed when somebody waits for what is held: release it soon.
func (h *Hold) Wanted() <-chan struct{} { return h.h.Wanted() }

func (h *Hold) isWanted() bool {
	select {
	case <-h.Wanted():
		return true
	default:
		return false
	}
}

// Lost is closed when the credit was taken, or the connection is gone. It is not
// got back: acquire it anew.
func (h *Hold) Lost() <-chan struct{} { return h.h.Lost() }

// Valid says whether the credit is held still.
func (h *Hold) Valid() bool { return !h.once.Load() && !h.c.gone() && h.h.Valid() }

// Release ends the hold, when nothing is under way under it any more. The credit
// stays cached until somebody wants it. Errors: ESTALE if it was taken before,
// ECONNRESET if it went with the connection, EBADF if it was released before.
func (h *Hold) Release() error {
	if h.once.Swap(true) {
		return api.Errorf(api.EBADF, opRelease, "the credit was released before")
	}
	err := h.h.Release(credit.Version{})
	h.c.leave(h.k, h.open)
	if err != nil {
		return creditError(opRelease, h.k.id, err)
	}
	return nil
}

// credit returns what a request is for.
func (r *CreditRequest) credit(id layout.ObjectID) (credit.Credit, error) {
	const all = credit.Read | credit.Append | credit.Write | credit.Delete
	switch {
	case r.Modes == 0 || r.Modes&^all != 0:
		return nil, &api.Error{Code: api.EINVAL, Op: opAcquire, Object: id, Detail: "no mode, or one that objects do not have: read, append, write or delete"}
	case r.Offset < 0 || r.Length < 0 || r.Offset+r.Length < 0:
		return nil, &api.Error{Code: api.EINVAL, Op: opAcquire, Object: id, Detail: "a range that begins or ends below 0 or above 2^63"}
	}
	s := credit.Span{First: uint64(r.Offset), End: credit.End, Modes: r.Modes}
	if r.Length > 0 {
		s.End = uint64(r.Offset + r.Length)
	}
	whole := credit.Span{End: credit.End, Modes: r.Modes & (credit.Append | credit.Delete)}
	return credit.Make(s, whole), nil
}

// creditError is an error of the library of credits as one of this package.
func creditError(op string, id layout.ObjectID, err error) *api.Error {
	e := &api.Error{Code: api.EIO, Op: op, Object: id, Err: err}
	if x, ok := errors.AsType[*credit.Error](err); ok {
		e.Code, e.Detail, e.Err = creditCode(x.Code), x.Detail, x.Code
		switch {
		case x.Code == credit.ErrNotFound:
			e.Detail = "there is no such object, or none that you may see"
		case x.Code == credit.ErrDenied:
			e.Detail = "the pool is open to be read only: who may write it may have more than read credits"
		case x.Limit != nil:
			l := x.Limit
			e.Refusal = &api.Refusal{Class: l.Kind, Owner: l.Name, Used: l.Used, Asked: l.Asked, Limit: l.Limit}
			e.Err = fmt.Errorf("%w: %s", x.Code, l.Text)
		}
	}
	return e
}

func creditCode(c credit.Code) api.Code {
	switch c {
	case credit.ErrBusy:
		return api.EBUSY
	case credit.ErrRemote, credit.ErrLimit:
		return api.EAGAIN
	case credit.ErrNotFound:
		return api.ENOENT
	case credit.ErrTimeout:
		return api.ETIMEDOUT
	case credit.ErrCanceled:
		return api.ECANCELED
	case credit.ErrStale:
		return api.ESTALE
	case credit.ErrClosed, credit.ErrNoCreditor:
		return api.ECONNRESET
	case credit.ErrInvalid:
		return api.EINVAL
	case credit.ErrDenied:
		return api.EPERM
	}
	return api.EIO
}
