package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
)

// errReaderGone ends a verb whose output nobody reads any more.
var errReaderGone = errors.New("the reader of the output is gone")

// readerGone says whether err means that the other end of the standard output
// is closed. Nobody else's broken pipe counts, such as the daemon's socket.
func readerGone(err error) bool {
	if errors.Is(err, errReaderGone) {
		return true
	}
	path, ok := errors.AsType[*fs.PathError](err)
	return ok && path.Path == os.Stdout.Name() && errors.Is(path, syscall.EPIPE)
}

// pipePoll is how long a stream goes on after its reader has gone, in
// milliseconds.
const pipePoll = 200

// whileRead returns a context that ends when the reader of the output is gone,
// for verbs that may have nothing to write for long. stop must be called.
func (a *app) whileRead(parent context.Context) (ctx context.Context, stop func()) {
	f, ok := a.stdout.(*os.File)
	if !ok {
		return parent, func() {}
	}
	ctx, cancel := context.WithCancelCause(parent)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		fds := []unix.PollFd{{Fd: int32(f.Fd())}} // no events: only what is always told
		for ctx.Err() == nil {
			n, err := unix.Poll(fds, pipePoll)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
			if n > 0 {
				if fds[0].Revents&unix.POLLERR != 0 {
					cancel(errReaderGone)
				}
				return
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
	}
}

// followed is the result of a verb that goes on until it is interrupted: that
// is how it ends. err is what it ended with.
func followed(ctx context.Context, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), errReaderGone):
		return errReaderGone
	case ctx.Err() != nil && (errors.Is(err, api.ECANCELED) || errors.Is(err, context.Canceled)):
		return nil
	}
	return err
}
