package credit_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mpool-go/mpool/credit"
)

// proves G42: what a user of the creditor holds for a group is no obstacle to
// others of that group, debtors and users, and is one to everybody else; at the
// deadline it is taken, and who held it hears of it before the next one has it.
func TestNamedGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTree(t)
		root := w.open(nil, credit.Options{Config: credit.Config{CallBack: time.Second}})
		own := w.open(root, credit.Options{Config: credit.Config{Group: 7}})
		other := w.open(root, credit.Options{Config: credit.Config{Group: 8}})
		lost := false
		q := access(credit.Append, 0, credit.End, anyhow)
		q.Group, q.Lost = 7, func() { lost = true }
		held := acquire(t, root, q)
		again := q
		again.Lost = nil
		second := acquire(t, root, again)
		mine := acquire(t, own, access(credit.Append, 0, credit.End, anyhow))
		foreign := q
		foreign.Group, foreign.Flags = 8, foreign.Flags|credit.Try
		if _, err := root.Acquire(context.Background(), foreign); !errors.Is(err, credit.ErrBusy) {
			t.Errorf("a user of another group: %v", err)
		}
		if n := len(root.Loans(q.Resource)); n != 3 {
			t.Errorf("%d loans, want 3", n)
		}
		if r, _ := root.Debts(2); len(r) != 1 || r[0] != q.Resource || len(root.Resources()) != 1 {
			t.Errorf("the debtor has %v of %v", r, root.Resources())
		}
		next := acquire(t, other, access(credit.Append, 0, credit.End, anyhow)) // after the deadline
		if !lost || held.Valid() || second.Valid() || mine.Valid() {
			t.Errorf("told %v, valid %v %v %v", lost, held.Valid(), second.Valid(), mine.Valid())
		}
		for _, l := range root.Loans(q.Resource) {
			if l.Group != 8 || l.Token[0] != next.Token()[0] || l.Recalled || l.Waits {
				t.Errorf("left is %+v", l)
			}
		}
		release(t, next)
		if err := held.Release(credit.Version{}); !errors.Is(err, credit.ErrStale) {
			t.Errorf("release of what was taken: %v", err)
		}
		_ = second.Release(credit.Version{})
		_ = mine.Release(credit.Version{})
		w.close()
	})
}
