package mpool

import (
	"errors"
	"io"
	"testing"

	"github.com/mpool-go/mpool/api"
)

// A reader sees what is not synced while its own process appends, and only then.
//
// proves S25
func TestReadersOfProcesses(t *testing.T) {
	r := newRig(t, 25, 64<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		made, err := p.AllocMlog(bg, api.AllocOptions{Capacity: 1 << 16})
		r.ok(err)
		r.ok(made.Commit(bg))
		l := made.(*Mlog)
		var readers [3]api.LogReader
		for process := range readers { // 0: of none
			readers[process], err = l.OpenReadAs(bg, uint64(process))
			r.ok(err)
		}
		buf := make([]byte, 10)
		sees := func(when string, want ...bool) {
			t.Helper()
			for process, reader := range readers {
				_, err := reader.Next(bg, buf)
				if got := err == nil; got != want[process] || err != nil && !errors.Is(err, io.EOF) {
					t.Errorf("%s: process %d sees a record: %v (%v); want %v", when, process, got, err, want[process])
				}
			}
		}
		a, err := l.OpenAppendAs(bg, 1)
		r.ok(err)
		add := func() {
			_, err := a.Append(bg, []byte("record"), false)
			r.ok(err)
		}
		sees("empty", false, false, false)
		add()
		sees("unsynced", false, true, false)
		r.ok(a.Sync(bg))
		sees("synced", true, false, true)
		add()
		r.ok(a.Close(bg))
		sees("closed", true, true, true)
		a, err = l.OpenAppendAs(bg, 2)
		r.ok(err)
		add()
		sees("of another process", false, false, true)
		r.ok(a.Close(bg))
		a, err = l.OpenAppend(bg)
		r.ok(err)
		sees("closed again", true, true, false)
		add()
		sees("of none", false, false, false)
		r.ok(a.Close(bg))
		for _, reader := range readers {
			r.ok(reader.Close())
		}
		r.ok(l.Put())
		r.ok(p.Close())
	})
}
