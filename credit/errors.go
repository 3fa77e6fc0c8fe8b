package credit

import (
	"fmt"
	"strings"
)

// Code is why something was not done. It is an error itself, the one to compare
// with: errors.Is(err, credit.ErrBusy).
type Code uint8

// The codes.
const (
	ErrBusy       Code = iota + 1 // a conflicting credit is held, or waited for, and the request was to try only
	ErrRemote                     // the credit is elsewhere and the request may not borrow or revoke
	ErrNotFound                   // nobody up to the root has it
	ErrTimeout                    // the deadline passed
	ErrCanceled                   // the caller gave up
	ErrStale                      // the credit was taken, or its lease has ended
	ErrClosed                     // the owner is winding up or closed
	ErrNoCreditor                 // the creditor is gone
	ErrInvalid                    // a malformed request
	ErrLimit                      // too many requests wait, or there is too much of one debtor
	ErrDenied                     // the asker may not have it
)

var codeTexts = [...]string{
	ErrBusy: "busy", ErrRemote: "not here", ErrNotFound: "nobody has it", ErrTimeout: "deadline passed",
	ErrCanceled: "canceled", ErrStale: "stale", ErrClosed: "closed", ErrNoCreditor: "no creditor",
	ErrInvalid: "invalid", ErrLimit: "too much at once", ErrDenied: "not permitted",
}

// Error returns the code in words.
func (c Code) Error() string {
	if int(c) < len(codeTexts) && codeTexts[c] != "" {
		return codeTexts[c]
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// Error is what is known of a failure. errors.Is finds its Code.
type Error struct {
	Code     Code
	Op       string // what was tried, such as "acquire"
	Owner    OwnerID
	Resource Resource // on what, if on one
	Limit    *Limit   // ErrLimit: of who carries messages, which has refused; nil: not told
	Detail   string   // why not and what to do, one sentence
}

// Limit is one that has refused a request: not of an owner's, but of who carries its
// messages and has its own idea of how much memory they may take.
type Limit struct {
	Kind               string // of what
	Name               string // whose
	Used, Asked, Limit int64
	Text               string // all that is to be said, one sentence
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Resource.Type != nil {
		b.WriteString(" " + e.Resource.String())
	}
	b.WriteString(": " + e.Code.Error())
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	if e.Limit != nil {
		b.WriteString(": " + e.Limit.Text)
	}
	return b.String()
}

// Unwrap returns the code.
func (e *Error) Unwrap() error { return e.Code }
