package client

import (
	"errors"
	"fmt"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// lostError is within the error of every request that has no answer because its
// connection is gone.
type lostError struct {
	sent  bool // it may have been done
	cause error
}

func (e *lostError) Error() string { return e.cause.Error() }
func (e *lostError) Unwrap() error { return e.cause }

// errClosed is why a connection is gone that the program closed.
var errClosed = errors.New("closed by the program")

// errHungUp is why a connection is gone that the daemon closed. It must not be
// io.EOF, which to a caller who reads means that it has read everything.
var errHungUp = errors.New("closed by the daemon")

// lostIn returns what an error says of a lost request, or nil.
func lostIn(err error) *lostError {
	e, _ := errors.AsType[*lostError](err)
	return e
}

// gone is the error of an operation whose connection is gone and that has
// changed nothing, as far as the caller can care.
func gone(op string, cause error) *api.Error {
	return &api.Error{Code: api.ECONNRESET, Op: op, Err: cause, Detail: "the connection to the daemon is gone"}
}

// unsent is the error of a request that was not sent.
func unsent(op ioctl.Op, cause error) error {
	return gone(op.Name(), &lostError{cause: cause})
}

// lost is the error of a request that was sent and will not be answered.
func lost(op ioctl.Op, cause error) error {
	e := gone(op.Name(), &lostError{sent: true, cause: cause})
	switch {
	case op == ioctl.OpMblockWrite:
		e.Detail = "the connection to the daemon is gone, and with it the uncommitted mblock"
	case op.Mutates():
		return unknown(op, e)
	}
	return e
}

// unknown is the error of a request that may have been done.
func unknown(op ioctl.Op, cause error) *api.Error {
	return &api.Error{Code: api.EUNKNOWN, Op: op.Name(), Err: cause, Detail: "whether it was done is unknown"}
}

// final is an error of a lost request that is not made again.
func final(op ioctl.Op, err error, detail string) error {
	return &api.Error{Code: api.ECONNRESET, Op: op.Name(), Detail: detail, Err: lostIn(err).cause}
}

// stale is the error of the use of a handle whose connection is gone.
func stale(op ioctl.Op) error {
	return api.Errorf(api.EBADF, op.Name(),
		"the connection that gave the handle is gone, and the handle with it: find or open it again")
}

// foreign is the error of a process that uses its parent's connection.
func foreign(op string, pid int) error {
	return &api.Error{
		Code: api.EPERM, Op: op,
		Detail: fmt.Sprintf("the connection belongs to process %d, which made it: dial one of your own", pid),
	}
}
