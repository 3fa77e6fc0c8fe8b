package quota_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mpool-go/mpool/quota"
)

// anyChange draws a change, of the kind that a ledger sends or not.
func anyChange(t *rapid.T) quota.Change {
	name := rapid.SampledFrom([]string{"", "a", "b", "c", "bad\xff", strings.Repeat("n", quota.MaxName+1)})
	id := rapid.Custom(func(t *rapid.T) quota.ID { return quota.ID(rapid.IntRange(0, 4).Draw(t, "id")) })
	n := rapid.SampledFrom([]int64{-2, -1, 0, 1, 2, 1 << 62})
	switch rapid.IntRange(0, 14).Draw(t, "change") {
	case 0:
		c := quota.NewClass(name.Draw(t, "class"), quota.Count)
		c.Min, c.Total = n.Draw(t, "min"), quota.Limit(n.Draw(t, "total"))
		return quota.PutClass{Class: c}
	case 1:
		return quota.DropClass{Name: name.Draw(t, "class")}
	case 2:
		return quota.PutOwner{Owner: quota.Owner{Name: name.Draw(t, "owner"), Parent: name.Draw(t, "parent")}}
	case 3:
		return quota.PutLimit{Limit: quota.OwnerLimit{Owner: name.Draw(t, "owner"), Class: name.Draw(t, "class"), Limit: quota.Limit(n.Draw(t, "limit"))}}
	case 4:
		return quota.DropLimit{Owner: name.Draw(t, "owner"), Class: name.Draw(t, "class")}
	case 5, 6, 7:
		return quota.DropClaim{ID: id.Draw(t, "id"), Request: quota.Request{ID: name.Draw(t, "request"), Sum: 1}}
	}
	c := &quota.Claim{ID: id.Draw(t, "id"), Owner: "a", State: quota.State(rapid.IntRange(1, 2).Draw(t, "state"))}
	if c.ID > 1 && rapid.Bool().Draw(t, "below") {
		c.Parent = 1 + quota.ID(rapid.IntRange(0, int(c.ID)-1).Draw(t, "parent"))
	}
	if c.State == quota.Held {
		c.Real = rapid.SampledFrom([]string{"r1", "r2"}).Draw(t, "real")
	}
	if rapid.IntRange(0, 9).Draw(t, "odd") == 0 {
		c.Owner, c.State = name.Draw(t, "owner"), quota.State(rapid.IntRange(0, 3).Draw(t, "odd state"))
	}
	if c.State == quota.Reserved {
		c.Expires = time.UnixMilli(1)
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "amounts") {
		c.Amounts = append(c.Amounts, quota.Amount{Class: string(rune('a' + i)), N: max(1, n.Draw(t, "n"))})
	}
	if rapid.IntRange(0, 4).Draw(t, "request") == 0 {
		c.Requests = []quota.Request{{ID: name.Draw(t, "request"), Sum: 2}}
	}
	return quota.PutClaim{Claim: c}
}

// text is all that books say.
func text(b *quota.Books) string {
	s := fmt.Sprintf("%+v %+v %+v %v %v", b.Classes(), b.Owners(), b.Limits(), b.NextID(), b.Ended())
	for _, c := range b.Claims() {
		s += fmt.Sprintf(" %+v", *c)
	}
	return s
}

// proves G22, G23: whatever changes there are, all of them are made or none; those that
// are made leave sums that are the records'. What the changes of a list say alone, one
// after the other, they say together.
func TestChangesAllOrNone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := quota.NewBooks()
		made := []quota.Change{
			quota.PutClass{Class: quota.NewClass("a", quota.Count)},
			quota.PutClass{Class: quota.NewClass("b", quota.Count)},
			quota.PutOwner{Owner: quota.Owner{Name: "a"}},
		}
		if err := b.Apply(made); err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(10, 40).Draw(t, "lists") {
			list := make([]quota.Change, rapid.IntRange(1, 4).Draw(t, "changes"))
			for i := range list {
				list[i] = anyChange(t)
			}
			before := text(b)
			alone := quota.NewBooks()
			var refused error
			for _, c := range append(slices.Clip(made), list...) {
				if refused = alone.Apply([]quota.Change{c}); refused != nil {
					break
				}
			}
			err := b.Apply(list)
			if (err == nil) != (refused == nil) {
				t.Fatalf("%+v: together %v, alone %v", list, err, refused)
			}
			if err != nil {
				if got := text(b); got != before {
					t.Fatalf("refused, and it was\n%s\nand is\n%s", before, got)
				}
				continue
			}
			made = append(made, list...)
			if got, want := text(b), text(alone); got != want {
				t.Fatalf("together\n%s\nalone\n%s", got, want)
			}
			if err := b.Verify(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// proves G21, G24: owners that are too deep, and what is held and ends, are no
// records; what is above ends last.
func TestRecordsThatAreNone(t *testing.T) {
	var chain []quota.Change
	above := ""
	for i := range quota.MaxDepth {
		name := fmt.Sprint("o", i)
		chain = append(chain, quota.PutOwner{Owner: quota.Owner{Name: name, Parent: above}})
		above = name
	}
	b := quota.NewBooks()
	if err := b.Apply(chain); !errors.Is(err, quota.ErrInvalid) || len(b.Owners()) != 0 {
		t.Errorf("%d owners below one another: %v", len(chain), err)
	}
	chain = append(chain[:quota.MaxDepth-1], quota.PutClass{Class: quota.NewClass("x", quota.Count)})
	if err := b.Apply(chain); err != nil {
		t.Fatal(err)
	}
	c := &quota.Claim{ID: 1, Owner: "o0", State: quota.Held, Real: "r", Expires: time.UnixMilli(1), Amounts: []quota.Amount{{Class: "x", N: 1}}}
	if err := b.Apply([]quota.Change{quota.PutClaim{Claim: c}}); !errors.Is(err, quota.ErrInvalid) {
		t.Errorf("held until %v: %v", c.Expires, err)
	}
	parent := &quota.Claim{ID: 1, Owner: "o0", State: quota.Reserved, Expires: time.UnixMilli(1), Amounts: c.Amounts}
	child := *parent
	child.ID, child.Parent = 2, 1
	if err := b.Apply([]quota.Change{quota.PutClaim{Claim: parent}, quota.PutClaim{Claim: &child}, quota.DropClaim{ID: 1}}); !errors.Is(err, quota.ErrInUse) {
		t.Errorf("what is above ends first: %v", err)
	}
}
