package main

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// inputPoll is how long a read of a silent stream goes on after its context
// has ended, in milliseconds.
const inputPoll = 100

// interruptible makes reads of a stream end with the context. A read of a pipe
// or a terminal cannot be interrupted, so it is begun only when there is
// something to read.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	f, ok := r.(*os.File)
	if !ok {
		return r
	}
	return &interruptibleFile{ctx: ctx, f: f}
}

type interruptibleFile struct {
	ctx context.Context
	f   *os.File
}

// openStream opens a pipe, a terminal or another file whose length only its end tells.
// Neither the open nor a read waits for a writer longer than the context.
func openStream(ctx context.Context, path string) (io.ReadCloser, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{interruptible(ctx, f), f}, nil
}

func (r *interruptibleFile) Read(p []byte) (int, error) {
	fds := []unix.PollFd{{Fd: int32(r.f.Fd()), Events: unix.POLLIN}}
	for {
		if r.ctx.Err() != nil {
			return 0, context.Cause(r.ctx)
		}
		n, err := unix.Poll(fds, inputPoll)
		switch {
		case errors.Is(err, unix.EINTR), err == nil && n == 0:
			continue
		case err != nil:
			return 0, os.NewSyscallError("poll", err)
		}
		return r.f.Read(p)
	}
}
