package scope

import (
	"errors"
	"fmt"
)

// The conditions that a caller acts on.
var (
	// ErrLimit is what a *LimitError is: try again when something was released.
	ErrLimit = errors.New("limit reached")
	// ErrClosed is returned by calls on a scope that was closed, and by those on one below
	// it that ask for more.
	ErrClosed = errors.New("scope closed")
	// ErrNotReserved is returned by a release of more than the scope itself has
	// reserved, such as a second release. Nothing is released.
	ErrNotReserved = errors.New("not reserved")
	// ErrInvalid is returned for arguments that can never be right.
	ErrInvalid = errors.New("invalid argument")
	// ErrNotFound is returned for names that no open scope has.
	ErrNotFound = errors.New("no such scope")
	// ErrExpired is returned when a connection wants out of Transient too late.
	ErrExpired = errors.New("deadline passed")
)

// LimitError says which limit refused a reservation. It is an ErrLimit.
type LimitError struct {
	Scope  string // the one that refused
	Kind   Kind   // which may be a total of what was asked for
	Used   int64  // of it, when it was refused
	Asked  int64
	Limit  int64 // that counted: of memory, the share of Whole that the priority may use; of tasks, what is not kept
	Whole  int64 // the scope's limit
	Origin string
	// Setting is what to change for more, in the words of Options.Setting.
	Setting string
}

// Error tells all fields in a sentence.
func (e *LimitError) Error() string {
	limit := fmt.Sprintf("the limit of %d", e.Limit)
	switch {
	case e.Limit == e.Whole:
	case e.Kind >= TasksHigh:
		limit = fmt.Sprintf("the limit of %d less %d kept for tasks that wait", e.Whole, e.Whole-e.Limit)
	default:
		limit = fmt.Sprintf("the %d that this priority may use of the limit of %d", e.Limit, e.Whole)
	}
	return fmt.Sprintf("scope %s protects its %v: %d used and %d asked are more than %s (%s); to change: %s",
		e.Scope, e.Kind, e.Used, e.Asked, limit, e.Origin, e.Setting)
}

// Unwrap returns ErrLimit.
func (e *LimitError) Unwrap() error { return ErrLimit }
