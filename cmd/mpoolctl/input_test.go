package main

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// An interrupt ends a verb that was given a pipe to which nobody writes.
func TestPipeWithoutWriterEndsWithContext(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	in, err := openStream(ctx, pipe)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cause := errors.New("interrupted")
	cancel(cause)
	if n, err := in.Read(make([]byte, 1)); n != 0 || !errors.Is(err, cause) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
