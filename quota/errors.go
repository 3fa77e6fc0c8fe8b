package quota

import (
	"errors"
	"fmt"
)

// Conditions that a caller acts on, for errors.Is.
var (
	// ErrExceeded: a limit refuses, the EDQUOT of this package. errors.As gives an
	// *Exceeded, which says which.
	ErrExceeded = errors.New("quota exceeded")
	// ErrNotFound: there is no such class, claim or limit, or there is none any more.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name or the real id is taken.
	ErrExists = errors.New("exists already")
	// ErrInvalid: a bad argument.
	ErrInvalid = errors.New("invalid")
	// ErrExpired: the reservation's time is over.
	ErrExpired = errors.New("the reservation has expired")
	// ErrState: not in this state of the claim.
	ErrState = errors.New("not in this state")
	// ErrInUse: there are claims or limits of the class.
	ErrInUse = errors.New("in use")
	// ErrFull: the store has no room for another record.
	ErrFull = errors.New("the quota store is full")
	// ErrUnknown: the change was sent and its outcome is unknown. The same call with
	// the same request id tells.
	ErrUnknown = errors.New("outcome unknown")
	// ErrConflict is what a store says when its generation is not the expected one.
	// The library begins anew then; callers never see it.
	ErrConflict = errors.New("the generation has changed")
)

// Exceeded says which limit refuses what.
type Exceeded struct {
	Class string
	Owner string // whose limit: the claim's owner or one above; "" for the class's total
	Used  int64  // held and reserved by that owner and those below
	Asked int64
	Limit Limit
}

// Error returns one sentence.
func (e *Exceeded) Error() string {
	whose := "owner " + e.Owner
	if e.Owner == "" {
		whose = "all owners together"
	}
	return fmt.Sprintf("class %s: %s may hold %v and holds %d; %d more do not fit", e.Class, whose, e.Limit, e.Used, e.Asked)
}

// Is says whether target is [ErrExceeded].
func (e *Exceeded) Is(target error) bool { return target == ErrExceeded }

// fault is an error with a condition and a sentence.
type fault struct {
	kind error
	text string
}

func (f *fault) Error() string { return f.text }
func (f *fault) Unwrap() error { return f.kind }

func faultf(kind error, format string, args ...any) error {
	return &fault{kind: kind, text: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) error { return faultf(ErrInvalid, format, args...) }
