package api

import (
	"context"
	"errors"
)

// CodeOf returns the code of an error: its own, a context's as [ETIMEDOUT] or
// [ECANCELED], 0 for nil, and [EIO] for anything else.
func CodeOf(err error) Code {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	if c, ok := errors.AsType[Code](err); ok {
		return c
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return ETIMEDOUT
	case errors.Is(err, context.Canceled):
		return ECANCELED
	}
	return EIO
}

// ContextError makes the error of an operation that was not done because its
// context ended.
func ContextError(op string, cause error) *Error {
	return &Error{Code: CodeOf(cause), Op: op, Err: cause}
}
