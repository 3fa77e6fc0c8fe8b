package mpool

import (
	"errors"
	"testing"

	"github.com/mpool-go/mpool/api"
)

// A handle that is put while an abort of it is under way, which fails, is put:
// its reference is given back.
//
// proves S30
func TestPutDuringFailingAbort(t *testing.T) {
	r := newRig(t, 1, 64<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		for _, fails := range []bool{true, false} {
			x, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 4096})
			if err != nil {
				t.Fatal(err)
			}
			b, ok := x.(*Mblock)
			if !ok {
				t.Fatalf("%T", x)
			}
			again, err := x.Get(bg)
			if err != nil {
				t.Fatal(err)
			}
			err = b.end(bg, "mblock abort", func(o *object) error {
				if err := b.Put(); err != nil {
					t.Errorf("put: %v", err)
				}
				if fails {
					return api.Errorf(api.EBUSY, "mblock abort", "others use the object")
				}
				o.unref() // as an abort would have
				return nil
			})
			if fails != errors.Is(err, api.EBUSY) {
				t.Errorf("abort: %v", err)
			}
			for name, err := range map[string]error{"put": b.Put(), "abort": b.Abort(bg)} {
				if !errors.Is(err, api.EBADF) {
					t.Errorf("%s of a handle that was put: %v", name, err)
				}
			}
			if err := again.Abort(bg); err != nil {
				t.Errorf("the other handle is not the only one: %v", err)
			}
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}
