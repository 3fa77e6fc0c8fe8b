package embedded

import (
	"context"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/quota"
)

// proves G24: a request id that was forgotten, and used again for a claim that is
// there, is that claim's; of two that have ended it is the later one's.
func TestRequestUsedAgain(t *testing.T) {
	m := newImage()
	r := quota.Request{ID: "r", Sum: 1}
	s := quota.Request{ID: "s", Sum: 2}
	for _, c := range []any{
		quota.PutClass{Class: quota.NewClass("x", quota.Count)},
		quota.PutOwner{Owner: quota.Owner{Name: "a"}},
		ended{1, r},
		ended{2, s},
		ended{3, s},
		quota.PutClaim{Claim: &quota.Claim{
			ID: 4, Owner: "a", State: quota.Held, Real: "real",
			Amounts: []quota.Amount{{Class: "x", N: 1}}, Requests: []quota.Request{r},
		}},
	} {
		if err := m.apply(c); err != nil {
			t.Fatal(err)
		}
	}
	b, err := m.books(nil)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]quota.ID{"r": 4, "s": 3} {
		if _, claim, ok := b.Request(id); !ok || claim != want {
			t.Errorf("request %s is claim %v's, want %v", id, claim, want)
		}
	}
	if err := b.Verify(); err != nil {
		t.Error(err)
	}
}

// Who waits for the room that a compaction makes does not wait for one that there will
// not be.
func TestNoCompactionWhenClosing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // of a test that fails
	defer cancel()
	var s Store
	s.mu.Init(nil, 0)
	s.cond.Init(nil, &s.mu)
	s.mu.Lock()
	s.closing = true
	s.compactLocked()
	s.mu.Unlock()
	if err := s.compacted(ctx, 0); api.CodeOf(err) != api.EBADF {
		t.Errorf("%v", err)
	}
}
