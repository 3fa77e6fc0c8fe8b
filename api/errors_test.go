package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/layout"
)

// Every number up to the last has a name of its own: the numbers are on the
// wire.
func TestCodesHaveNames(t *testing.T) {
	seen := make(map[string]Code)
	for c := Code(1); int(c) < len(codeNames); c++ {
		name := c.Error()
		if !c.Valid() || !strings.HasPrefix(name, "E") || seen[name] != 0 {
			t.Errorf("code %d is called %q", uint16(c), name)
		}
		seen[name] = c
	}
	if Code(0).Valid() || Code(len(codeNames)).Valid() || Code(999).Error() != "E999" {
		t.Error("a number without a meaning counts as a code")
	}
}

func TestErrorSaysWhatOnWhatWhyAndWhere(t *testing.T) {
	cause := io.ErrUnexpectedEOF
	e := &Error{
		Code: ECORRUPT, Op: "mblock read", Object: layout.NewObjectID(layout.KindMblock, 7),
		Device: "/dev/sdx", Offset: 4096, Detail: "block 1 is broken", Err: cause,
	}
	const want = "mblock read 0100000000000007: block 1 is broken at /dev/sdx+4096: unexpected EOF (ECORRUPT)"
	if e.Error() != want {
		t.Errorf("%q, want %q", e, want)
	}
	wrapped := fmt.Errorf("outer: %w", e)
	if !errors.Is(wrapped, ECORRUPT) || errors.Is(wrapped, EIO) || !errors.Is(wrapped, cause) {
		t.Error("the code and the cause are to be found by errors.Is, others are not")
	}
}

func TestCodeOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Code
	}{
		{nil, 0},
		{ENOENT, ENOENT},
		{fmt.Errorf("x: %w", EBUSY), EBUSY},
		{fmt.Errorf("x: %w", &Error{Code: EFBIG, Err: EIO}), EFBIG},
		{context.DeadlineExceeded, ETIMEDOUT},
		{fmt.Errorf("x: %w", context.Canceled), ECANCELED},
		{ContextError("op", context.Canceled), ECANCELED},
		{io.EOF, EIO},
	} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("CodeOf(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}
