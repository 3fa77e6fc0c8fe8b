package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mpool/check"
)

// On a terminal what would be mended is shown, and asked for.
//
// proves S45
func TestConfirmMending(t *testing.T) {
	mended := []check.Problem{
		{Code: check.SuperblockMissing, Device: "/dev/x", Offset: 1 << 20, Text: "superblock copy 1: no mpool superblock"},
		{Code: check.LogCopy, Object: 7, Device: "/dev/x", Text: "mlog: one of two\nlines"},
	}
	for _, c := range []struct {
		answer string
		yes    bool
		want   error
	}{
		{"y\n", false, nil},
		{"YES\n", false, nil},
		{"\n", false, api.ECANCELED},
		{"no\n", false, api.ECANCELED},
		{"", false, api.ECANCELED},
		{"", true, nil},
	} {
		var out, errOut bytes.Buffer
		a := &app{
			stdin: strings.NewReader(c.answer), stdout: &out, stderr: &errOut, yes: c.yes,
			terminal: func(any) bool { return true },
		}
		if err := a.confirmMending(t.Context(), mended); !errors.Is(err, c.want) {
			t.Errorf("%q: %v, want %v", c.answer, err, c.want)
		}
		text := errOut.String()
		asked := strings.HasPrefix(text, "mendable: superblock-missing at /dev/x+1048576: superblock copy 1") &&
			strings.Contains(text, "mendable: log-copy object 0000000000000007 at /dev/x+0: mlog: one of two; lines\nMend these 2? [y/N] ")
		if asked == c.yes || out.Len() > 0 {
			t.Errorf("%q: %s", c.answer, text)
		}
	}
}

// A bar begins again when a repair looks at what it has mended, and needs no
// terminal.
func TestCheckProgress(t *testing.T) {
	var errOut bytes.Buffer
	p := &checkProgress{a: &app{stderr: &errOut, terminal: func(any) bool { return true }}}
	for range 2 {
		for done := range int64(4) {
			p.show(done*100, 300)
		}
	}
	p.end()
	if !strings.Contains(errOut.String(), "verifying") {
		t.Errorf("%q", errOut.String())
	}
	p = &checkProgress{a: &app{stderr: &errOut, terminal: func(any) bool { return false }}}
	errOut.Reset()
	p.show(1, 2)
	if p.end(); errOut.Len() > 0 {
		t.Errorf("%q", errOut.String())
	}
}
