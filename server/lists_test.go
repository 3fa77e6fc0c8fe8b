package server

import (
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// A session reads so many lists at one time, and others when it has closed
// some: what a list costs the daemon is not what a handle costs.
//
// proves S43
func TestListsBounded(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	ask := &ioctl.ListOpen{Pool: w.openPool()}
	var last ioctl.Handle
	for range maxLists {
		last = w.opened(ioctl.OpListOpen, ask)
	}
	_, err := w.ask(ioctl.OpListOpen, ask)
	want(t, api.EAGAIN, err)
	w.ok(ioctl.OpClose, &ioctl.Target{Handle: last})
	w.opened(ioctl.OpListOpen, ask)
	_, err = w.ask(ioctl.OpListOpen, ask)
	want(t, api.EAGAIN, err)
}
