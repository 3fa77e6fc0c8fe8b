package client_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/test/daemon"
)

// The examples do with a daemon what they say. They end the test's process if a call fails.
func TestExamples(t *testing.T) {
	drive := daemon.Drive(t, 64<<20)
	bin, err := daemon.Build(t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	d := daemon.Start(t, bin, daemon.Options{})
	t.Setenv("MPOOL_SOCKET", d.Socket)
	_, p := d.Pool("data", drive, api.CreateOptions{ZoneSize: 64 << 10})
	l, err := p.AllocMlog(t.Context(), api.AllocOptions{Capacity: 64 << 10})
	if err == nil {
		err = l.Commit(t.Context())
	}
	if err != nil || l.ID() != 0x0200000000000001 {
		t.Fatal(l, err)
	}
	m, err := p.ReallocMblock(t.Context(), 0x0100000000000001, api.AllocOptions{Capacity: 8192})
	if err == nil {
		_, err = m.Write(t.Context(), bytes.Repeat([]byte{0xab}, 8192))
	}
	if err == nil {
		err = errors.Join(m.Commit(t.Context()), m.Put())
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(t.Context(), client.Options{Credits: &client.CreditOptions{}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	other, err := c.OpenPool(t.Context(), "data")
	if err != nil {
		t.Fatal(err)
	}
	for name, run := range map[string]func() string{
		"999 reads from memory":   func() string { return printed(t, Example_cache) },
		"512 bytes begin with ab": func() string { return printed(t, ExampleViewer) },
		"": func() string {
			over := make(chan string)
			go func() { over <- printed(t, ExampleCredits) }()
			daemon.Eventually(t, "it appends", func() bool {
				// Also what another example has left may be listed still.
				for x, err := range c.EachCredit(t.Context(), "data") {
					if err == nil && x.Object == l.ID() && x.State == client.CreditGranted {
						return true
					}
				}
				return false
			})
			h, err := other.(client.Credits).AcquireCredit(t.Context(), l.ID(), client.CreditRequest{Modes: client.CreditAppend})
			if err == nil {
				err = h.Release()
			}
			if err != nil {
				t.Error(err)
			}
			return <-over
		},
	} {
		if out := run(); !strings.HasPrefix(out, name) {
			t.Errorf("%q is printed, want %q", out, name)
		}
	}
}

// printed returns what an example prints.
func printed(t *testing.T, example func()) string {
	r, w, err := os.Pipe()
	if err != nil {
		t.Error(err)
		return ""
	}
	stdout := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = stdout }()
	example()
	_ = w.Close()
	out, err := io.ReadAll(r)
	_ = r.Close()
	if err != nil {
		t.Error(err)
	}
	return string(out)
}
