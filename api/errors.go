package api

import (
	"fmt"
	"strings"

	"github.com/mpool-go/mpool/layout"
)

// Code is a condition that a caller can act on. A Code is an error itself and
// the sentinel to compare with: errors.Is(err, api.ENOENT). The numbers are
// part of the wire protocol and never change.
type Code uint16

// The codes.
const (
	EBADF      Code = 1  // the handle is stale, of another kind, or was never given
	ENOENT     Code = 2  // no such object, pool, root or owner that the caller may see
	EEXIST     Code = 3  // the name or id is taken
	EBUSY      Code = 4  // others hold references or opens; see Error.Holders
	ENOSPC     Code = 5  // no free run of zones, or no room in the metadata, is large enough
	EFBIG      Code = 6  // the log is full; nothing of the record was taken
	EOVERFLOW  Code = 7  // the buffer is too small; Error.Want has the size
	EINVAL     Code = 8  // a bad argument: which, and why
	ESTATE     Code = 9  // not allowed in the object's state
	EPERM      Code = 10 // not allowed for this caller
	EROFS      Code = 11 // the pool is read-only
	EAGAIN     Code = 12 // a limit on use now (a scope) refuses
	EDQUOT     Code = 13 // a limit on what is held (a quota) refuses
	ESTALE     Code = 14 // fenced or superseded: reopen or rewind
	EUNKNOWN   Code = 15 // sent; the outcome is unknown until the next activation or look
	ETIMEDOUT  Code = 16 // the deadline passed; not done
	ECONNRESET Code = 17 // the connection to the daemon is gone
	EIO        Code = 18 // the drive failed the request
	ECORRUPT   Code = 19 // bytes on the drive are not what was written
	EPROTO     Code = 20 // the peer broke the protocol
	ENOTSUP    Code = 21 // not supported here
	ECANCELED  Code = 22 // the caller gave up; not done
	ENOMEM     Code = 23 // no memory or descriptors
)

var codeNames = [...]string{
	EBADF: "EBADF", ENOENT: "ENOENT", EEXIST: "EEXIST", EBUSY: "EBUSY", ENOSPC: "ENOSPC",
	EFBIG: "EFBIG", EOVERFLOW: "EOVERFLOW", EINVAL: "EINVAL", ESTATE: "ESTATE", EPERM: "EPERM",
	EROFS: "EROFS", EAGAIN: "EAGAIN", EDQUOT: "EDQUOT", ESTALE: "ESTALE", EUNKNOWN: "EUNKNOWN",
	ETIMEDOUT: "ETIMEDOUT", ECONNRESET: "ECONNRESET", EIO: "EIO", ECORRUPT: "ECORRUPT",
	EPROTO: "EPROTO", ENOTSUP: "ENOTSUP", ECANCELED: "ECANCELED", ENOMEM: "ENOMEM",
}

// Error returns the code's name, such as "ENOENT".
func (c Code) Error() string {
	if int(c) < len(codeNames) && codeNames[c] != "" {
		return codeNames[c]
	}
	return fmt.Sprintf("E%d", uint16(c))
}

// Valid says whether c is a known code.
func (c Code) Valid() bool { return int(c) < len(codeNames) && codeNames[c] != "" }

// Holder is somebody who holds references on an object.
type Holder struct {
	PID        int32  // 0: in process, or not shown to this caller
	References uint32 // of these, the caller must leave one, its own, to delete
}

// Refusal says which limit refuses what.
type Refusal struct {
	Class string // EDQUOT: the resource class; EAGAIN: the kind of resource of a scope
	Owner string // EDQUOT: whose limit, a path, "" for all owners together; EAGAIN: the scope
	Used  int64  // of it, when it was refused
	Asked int64
	Limit int64 // or QuotaUnlimited, where more cannot be counted
}

// Error is an error with what is known about it. It is what every operation
// returns; errors.Is finds its Code and what it wraps.
type Error struct {
	Code    Code
	Op      string          // what was tried, such as "mblock commit"
	Object  layout.ObjectID // on what, or 0
	Device  string          // the drive's path, or ""
	Offset  int64           // on the drive, in bytes; 0 also if no place is meant
	Want    int64           // EOVERFLOW: the size needed; ENOSPC: bytes asked; EDQUOT: as Refusal.Asked
	Have    int64           // ENOSPC: bytes free; EDQUOT: what would fit
	Longest int64           // ENOSPC: the longest free run, in bytes
	Holders []Holder        // EBUSY; ENOENT of an object: who deletes it just now, so that it may be there again
	Refusal *Refusal        // EDQUOT; EAGAIN of a scope; nil: not told
	Records uint64          // EUNKNOWN of an append whose answer was lost: records with lower numbers were acknowledged
	Detail  string          // why not and what to do, one sentence
	Err     error           // the cause, or nil
}

// Error returns one line: operation, object, reason, place, code.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op)
	}
	if e.Object != 0 {
		fmt.Fprintf(&b, " %v", e.Object)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	switch {
	case e.Detail != "":
		b.WriteString(e.Detail)
	case e.Err != nil:
		b.WriteString(e.Err.Error())
	default:
		b.WriteString("failed")
	}
	if e.Device != "" {
		fmt.Fprintf(&b, " at %s", e.Device)
		if e.Offset != 0 {
			fmt.Fprintf(&b, "+%d", e.Offset)
		}
	}
	if e.Detail != "" && e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	fmt.Fprintf(&b, " (%v)", e.Code)
	return b.String()
}

// Is says whether target is the error's code.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error with a detail.
func Errorf(code Code, op string, format string, args ...any) *Error {
	return &Error{Code: code, Op: op, Detail: fmt.Sprintf(format, args...)}
}
