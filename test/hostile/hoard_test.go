package hostile

import (
	"errors"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/test/daemon"
)

// proves S43: what a handle costs the daemon does not depend on what else a
// client has made it hold, so that the limit on handles is one on memory.
func TestHoardedHandles(t *testing.T) {
	s := newSiege(t)
	const (
		n    = 600
		most = 4 << 10 // bytes per handle
		// A reader has a window of its log at hand, of 64 KiB at first.
		mostReader = 96 << 10
	)
	w, err := daemon.Greeted(s.d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Conn.Close()
	pool, err := w.OpenPool(poolName)
	if err != nil {
		t.Fatal(err)
	}
	open := func(op ioctl.Op, m ioctl.Message) ioctl.Handle {
		t.Helper()
		h, err := w.Open(op, m)
		if err != nil {
			t.Fatalf("%v: %v", op, err)
		}
		return h
	}
	alloc := &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 20}}
	l := open(ioctl.OpMlogAlloc, alloc)
	a := ioctl.Handle(0)
	for _, x := range []struct {
		what string
		do   func()
	}{
		{"commit", func() {
			if _, err := w.Ask(ioctl.OpObjectCommit, &ioctl.Target{Handle: l}); err != nil {
				t.Fatal(err)
			}
			a = open(ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: l})
			rec := &ioctl.AppendRecord{To: a, Sync: true, Data: ioctl.InlinePayload(make([]byte, 30_000))}
			for range 20 {
				if _, err := w.Ask(ioctl.OpAppend, rec); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"pool", func() { open(ioctl.OpPoolOpen, &ioctl.PoolName{Name: poolName}) }},
		{"reference", func() { open(ioctl.OpObjectGet, &ioctl.Target{Handle: l}) }},
		{"mblock", func() { open(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool}) }},
		{"mblock begun", func() {
			h := open(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 8192}})
			data := ioctl.InlinePayload(make([]byte, 100))
			if _, err := w.Ask(ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: h, Total: 100, Data: data}); err != nil {
				t.Fatal(err)
			}
		}},
		{"mlog", func() { open(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 8192}}) }},
		{"reader", func() {
			r := open(ioctl.OpMlogOpenRead, &ioctl.Target{Handle: l})
			into := ioctl.Window{Length: ioctl.MaxInline}
			if _, err := w.Ask(ioctl.OpReadNext, &ioctl.ReadNext{Reader: r, Into: into}); err != nil {
				t.Fatal(err)
			}
		}},
		{"list", func() { // of which there are few: most of this is refused
			h, err := w.Open(ioctl.OpListOpen, &ioctl.ListOpen{Pool: pool})
			if errors.Is(err, api.EAGAIN) {
				return
			}
			if err == nil {
				_, err = w.Ask(ioctl.OpListNext, &ioctl.Target{Handle: h})
			}
			if err != nil {
				t.Fatal(err)
			}
		}},
	} {
		bound := int64(most)
		if x.what == "reader" {
			bound = mostReader
		}
		before, resident := s.d.Heap(), s.d.Usage().Resident
		times := n
		if x.what == "commit" {
			times = 1
		}
		for range times {
			x.do()
		}
		each := (s.d.Heap() - before) / int64(times)
		// Windows are not the collector's.
		grown := (s.d.Usage().Resident - resident) / int64(times)
		t.Logf("%-12s %6d bytes each of the heap, %6d resident", x.what, each, grown)
		if each > bound && times > 1 {
			t.Errorf("a handle on a %s costs the daemon %d bytes", x.what, each)
		}
	}
}
