package credit_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/mpool-go/mpool/credit"
)

const anyhow = credit.MayBorrow | credit.MayRevoke

var object = credit.Resource{Type: credit.Access, ID: 0x10}

// tree is owners of one process: a root that checks tokens, and others.
type tree struct {
	t      *testing.T
	mu     sync.Mutex
	guard  credit.Guard     // +checklocks:mu
	fenced []credit.OwnerID // +checklocks:mu
	owners []*credit.Owner  // in the order in which they were opened
	ids    credit.OwnerID
}

func newTree(t *testing.T) *tree { return &tree{t: t} }

func (w *tree) open(under *credit.Owner, opt credit.Options) *credit.Owner {
	w.t.Helper()
	w.ids++
	opt.ID = w.ids
	opt.Fence = func(r credit.Resource, c credit.Credit, token credit.Token) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.guard.Raise(r, c, token)
	}
	opt.Fenced = func(debtor credit.OwnerID, _ credit.Resource, _ credit.Credit) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.fenced = append(w.fenced, debtor)
	}
	var e credit.Engine
	if under != nil {
		e = credit.NewLocal(under)
	}
	o, err := credit.Open(opt, e)
	if err != nil {
		w.t.Fatal(err)
	}
	w.owners = append(w.owners, o)
	synctest.Wait()
	return o
}

// close winds all up, the last first.
func (w *tree) close() {
	w.t.Helper()
	for _, o := range slices.Backward(w.owners) {
		if err := o.Close(w.t.Context()); err != nil {
			w.t.Errorf("close: %v", err)
		}
	}
}

// check does work under a hold where it is checked.
func (w *tree) check(h *credit.Hold) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.guard.Check(h.Resource(), h.Credit(), h.Token())
}

func access(modes credit.Modes, first, end uint64, flags credit.Flags) credit.Request {
	return credit.Request{
		Resource: object, Credit: credit.Make(credit.Span{First: first, End: end, Modes: modes}), Flags: flags,
	}
}

func acquire(t *testing.T, o *credit.Owner, r credit.Request) *credit.Hold {
	t.Helper()
	h, err := o.Acquire(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func refused(t *testing.T, o *credit.Owner, r credit.Request, code credit.Code) {
	t.Helper()
	h, err := o.Acquire(t.Context(), r)
	if !errors.Is(err, code) {
		t.Fatalf("acquire: %v, %v; want %v", h, err, code)
	}
}

// waits acquires in the background and makes sure that it waits.
func waits(t *testing.T, o *credit.Owner, r credit.Request) <-chan *credit.Hold {
	t.Helper()
	c := make(chan *credit.Hold, 1)
	ctx := t.Context()
	go func() {
		h, err := o.Acquire(ctx, r)
		if err != nil {
			t.Errorf("acquire: %v", err)
		}
		c <- h
	}()
	synctest.Wait()
	select {
	case h := <-c:
		t.Fatalf("%s was granted at once", h.Resource().Type.Format(h.Credit()))
	default:
	}
	return c
}

func granted(t *testing.T, c <-chan *credit.Hold) *credit.Hold {
	t.Helper()
	synctest.Wait()
	select {
	case h := <-c:
		return h
	default:
		t.Fatal("it still waits")
		return nil
	}
}

func release(t *testing.T, h *credit.Hold) {
	t.Helper()
	if err := h.Release(credit.Version{}); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func isClosed(c <-chan struct{}) bool {
	synctest.Wait()
	select {
	case <-c:
		return true
	default:
		return false
	}
}
