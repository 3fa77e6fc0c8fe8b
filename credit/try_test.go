package credit_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mpool-go/mpool/credit"
)

// proves G40: who only tries is not kept waiting by what was called back for
// somebody who has given up since, near or far.
func TestTryAfterCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{})
		mid := w.open(root, credit.Options{})
		leaf, near, far := w.open(mid, credit.Options{}), w.open(mid, credit.Options{}), w.open(root, credit.Options{})
		h := acquire(t, leaf, access(credit.Write, 0, 10, anyhow))
		for _, o := range []*credit.Owner{near, far} {
			ctx, stop := context.WithTimeout(t.Context(), time.Second)
			if _, err := o.Acquire(ctx, access(credit.Read, 0, 10, anyhow)); !errors.Is(err, credit.ErrTimeout) {
				t.Fatalf("what is held: %v", err)
			}
			stop()
		}
		for _, o := range []*credit.Owner{near, far} {
			try(t, o, access(credit.Read, 0, 10, anyhow|credit.Try))
		}
		release(t, h)
		w.close()
	})
}

// proves G40: who only tries is not kept waiting by what others call back
// meanwhile, who do not conflict with it.
func TestTryBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{})
		mid := w.open(root, credit.Options{})
		leaf, other := w.open(mid, credit.Options{}), w.open(root, credit.Options{})
		h := acquire(t, leaf, access(credit.Write, 0, 10, anyhow))
		reader := waits(t, root, access(credit.Read, 0, 10, anyhow))
		try(t, other, access(credit.Append, 0, 10, anyhow|credit.Try))
		release(t, h)
		release(t, granted(t, reader))
		w.close()
	})
}

// try has r refused at once because it is busy.
func try(t *testing.T, o *credit.Owner, r credit.Request) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	if h, err := o.Acquire(ctx, r); !errors.Is(err, credit.ErrBusy) {
		t.Errorf("to try what is held: %v, %v", h, err)
	}
}
