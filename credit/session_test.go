package credit_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mpool-go/mpool/credit"
)

// proves G43: who leaves its creditor for another connection stops using what it
// had before the creditor hears of it, though its lease has not ended.
func TestReconnectInLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{Config: credit.Config{Lease: time.Minute}})
		var next *credit.Hold
		leaf, other := w.open(root, credit.Options{}), w.open(root, credit.Options{})
		h := acquire(t, leaf, access(credit.Write, 0, 10, anyhow))
		c := waits(t, other, access(credit.Write, 0, 10, anyhow))
		link := &watched{Local: credit.NewLocal(root), closing: func() {
			if h.Valid() {
				t.Error("it is told that its holder is gone, who has it")
			}
		}}
		if err := leaf.Reconnect(link); err != nil { // away from the first one
			t.Fatal(err)
		}
		next = granted(t, c)
		if h.Valid() || w.check(next) != nil {
			t.Errorf("the one before is valid: %v, work of the next: %v", h.Valid(), w.check(next))
		}
		release(t, next)
		h = acquire(t, leaf, access(credit.Write, 0, 10, anyhow))
		if err := leaf.Reconnect(credit.NewLocal(root)); err != nil {
			t.Fatal(err)
		}
		release(t, acquire(t, other, access(credit.Write, 0, 10, anyhow)))
		w.close()
	})
}

// proves G47: of two calls that connect an owner anew at the same time one is
// refused, and what the other has made works.
func TestReconnectTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{})
		spare := w.open(nil, credit.Options{})
		var leaf *credit.Owner
		var inner error
		link := &watched{Local: credit.NewLocal(root), closing: func() {
			inner = leaf.Reconnect(credit.NewLocal(spare))
		}}
		leaf = w.open(root, credit.Options{})
		if err := leaf.Reconnect(link); err != nil {
			t.Fatal(err)
		}
		if err := leaf.Reconnect(credit.NewLocal(root)); !errors.Is(err, credit.ErrBusy) || inner != nil {
			t.Errorf("one call %v, another in the midst of it %v", err, inner)
		}
		release(t, acquire(t, leaf, access(credit.Write, 0, 10, anyhow)))
		w.close()
	})
}

// watched is an engine that says when a link is to be closed.
type watched struct {
	*credit.Local
	closing func()
}

func (e *watched) Connect(debtor credit.OwnerID, peer credit.Peer) (credit.Link, error) {
	l, err := e.Local.Connect(debtor, peer)
	return &watchedLink{l, e.closing}, err
}

type watchedLink struct {
	credit.Link
	closing func()
}

func (l *watchedLink) Close() {
	l.closing()
	l.Link.Close()
}

// proves G44: the replay of Kleppmann. One acquires and is stopped before its
// write; its credit is taken; the next one writes; the first one resumes, knows
// nothing, and its write is refused, as is each that it makes later.
func TestKleppmannReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{Config: credit.Config{CallBack: time.Second}})
		a, b := w.open(root, credit.Options{}), w.open(root, credit.Options{})
		content := ""
		write := func(h *credit.Hold, s string) error {
			if err := w.check(h); err != nil {
				return err
			}
			content = s
			return nil
		}
		first := acquire(t, a, access(credit.Write, 0, 10, anyhow))
		if err := write(first, "a1"); err != nil {
			t.Fatal(err)
		}
		second := acquire(t, b, access(credit.Write, 0, 10, anyhow)) // a does not answer: fenced
		if err := write(first, "a2, between"); !errors.Is(err, credit.ErrStale) {
			t.Errorf("a write of the first before one of the second: %v", err)
		}
		if err := write(second, "b1"); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := write(first, "a2, late"); !errors.Is(err, credit.ErrStale) {
				t.Errorf("a write of the first after it resumed: %v", err)
			}
		}
		if err := first.Release(credit.Version{}); !errors.Is(err, credit.ErrStale) {
			t.Errorf("release of the first: %v", err)
		}
		release(t, second)
		if err := write(first, "a2, last"); !errors.Is(err, credit.ErrStale) || content != "b1" {
			t.Errorf("after the second has ended: %v, %q is there", err, content)
		}
		again := acquire(t, a, access(credit.Write, 0, 10, anyhow))
		if err := write(again, "a3"); err != nil || again.Token().Compare(second.Token()) <= 0 {
			t.Errorf("acquired anew: %v, tokens %v and %v", err, again.Token(), second.Token())
		}
		release(t, again)
		w.close()
	})
}

// proves G47: nobody becomes a debtor under the id of its creditor's creditor,
// whose word it would be taken for.
func TestIDOfTheCreditor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{})
		mid := w.open(root, credit.Options{})
		o, err := credit.Open(credit.Options{Config: credit.Config{ID: 1}}, credit.NewLocal(mid))
		if !errors.Is(err, credit.ErrInvalid) {
			t.Errorf("a debtor with the root's id: %v", err)
			o.Abandon()
		}
		w.close()
	})
}
