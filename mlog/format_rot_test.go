package mlog

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
)

// A log is formatted anew while tail slots of it cannot be read: the pair that may
// hold its tail is left alone, and if that may be either, nothing is written.
//
// proves S24
func TestFormatOverUnreadableTails(t *testing.T) {
	for _, unreadable := range [][]int{nil, {0}, {1}, {0, 1}} {
		r := newRig(t, nil, 24)
		r.format(t)
		now := r.c
		now.Generation++
		if err := Format(bg, now, r.c.Generation); err != nil { // into pair 1
			t.Fatal(err)
		}
		was := r.disk.Clone()
		for _, pair := range unreadable {
			at := now.pairOffset(pair)
			r.disk.Inject(sim.Fault{Code: bdev.OpRead, From: at, To: at + PairPages*PageSize, Err: syscall.EIO})
		}
		next := now
		next.Generation++
		err := Format(bg, next, now.Generation)
		if (len(unreadable) == 2) != errors.Is(err, api.EIO) {
			t.Errorf("pairs %v cannot be read: %v", unreadable, err)
		}
		for pair := range 2 {
			before, after := make([]byte, PageSize), make([]byte, PageSize)
			if _, err := was.ReadAt(before, now.pairOffset(pair)); err != nil {
				t.Fatal(err)
			}
			if _, err := r.disk.ReadAt(after, now.pairOffset(pair)); err != nil {
				t.Fatal(err)
			}
			if written := !bytes.Equal(before, after); written != (pair == 0 && err == nil) {
				t.Errorf("pairs %v cannot be read: pair %d is written: %v", unreadable, pair, written)
			}
		}
	}
}
