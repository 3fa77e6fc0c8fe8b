package embedded

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/mpool-go/mpool/quota"
)

// image is what a log says so far: upserts, in any order, which become books when all
// of it is read.
type image struct {
	classes map[string]quota.Class
	owners  map[string]quota.Owner
	limits  map[[2]string]quota.OwnerLimit // by owner and class
	claims  map[quota.ID]*quota.Claim
	ended   []ended
	next    quota.ID
}

func newImage() *image {
	return &image{
		classes: make(map[string]quota.Class), owners: make(map[string]quota.Owner),
		limits: make(map[[2]string]quota.OwnerLimit), claims: make(map[quota.ID]*quota.Claim), next: 1,
	}
}

func (m *image) apply(change any) error {
	switch c := change.(type) {
	case quota.PutClass:
		m.classes[c.Class.Name] = c.Class
	case quota.DropClass:
		delete(m.classes, c.Name)
	case quota.PutOwner:
		m.owners[c.Owner.Name] = c.Owner
	case quota.PutLimit:
		m.limits[[2]string{c.Limit.Owner, c.Limit.Class}] = c.Limit
	case quota.DropLimit:
		delete(m.limits, [2]string{c.Owner, c.Class})
	case quota.PutClaim:
		m.claims[c.Claim.ID] = c.Claim
		m.next = max(m.next, c.Claim.ID+1)
	case quota.DropClaim:
		if old := m.claims[c.ID]; old != nil {
			for _, r := range old.Requests {
				m.ended = append(m.ended, ended{c.ID, r})
			}
		}
		if c.Request.ID != "" {
			m.ended = append(m.ended, ended{c.ID, c.Request})
		}
		delete(m.claims, c.ID)
		m.next = max(m.next, c.ID+1)
		m.trim()
	case nextID:
		m.next = max(m.next, c.id)
	case ended:
		m.ended = append(m.ended, c)
		m.trim()
	}
	return nil
}

// trim forgets the oldest of twice as many as are remembered.
func (m *image) trim() {
	if len(m.ended) > 2*quota.MaxEnded {
		m.ended = slices.Delete(m.ended, 0, len(m.ended)-quota.MaxEnded)
	}
}

// books makes books of it. owners, if not nil, are those that there are, whatever the
// log says of owners.
func (m *image) books(owners []quota.Owner) (*quota.Books, error) {
	if owners == nil {
		owners = slices.SortedFunc(maps.Values(m.owners), func(x, y quota.Owner) int { return cmp.Compare(x.Name, y.Name) })
	}
	b := quota.NewBooks()
	changes := make([]quota.Change, 0, len(m.classes)+len(m.limits)+len(m.claims))
	for _, name := range slices.Sorted(maps.Keys(m.classes)) {
		changes = append(changes, quota.PutClass{Class: m.classes[name]})
	}
	changes, err := parentsFirst(owners, changes)
	if err != nil {
		return nil, err
	}
	for _, l := range slices.SortedFunc(maps.Values(m.limits), func(x, y quota.OwnerLimit) int {
		return cmp.Or(cmp.Compare(x.Owner, y.Owner), cmp.Compare(x.Class, y.Class))
	}) {
		changes = append(changes, quota.PutLimit{Limit: l})
	}
	for _, id := range slices.Sorted(maps.Keys(m.claims)) { // those above have lower ids
		changes = append(changes, quota.PutClaim{Claim: m.claims[id]})
	}
	if err := b.Apply(changes); err != nil {
		return nil, err
	}
	for _, e := range m.lastEnded() {
		b.Remember(e.id, e.request)
	}
	b.SkipIDs(m.next)
	return b, nil
}

// lastEnded returns each request once, as it was last. Who has forgotten one may have
// used its id for a claim that is there: then that counts.
func (m *image) lastEnded() []ended {
	seen := make(map[string]bool)
	for _, c := range m.claims { // order does not matter
		for _, r := range c.Requests {
			seen[r.ID] = true
		}
	}
	var list []ended
	for _, e := range slices.Backward(m.ended) {
		if !seen[e.request.ID] {
			seen[e.request.ID] = true
			list = append(list, e)
		}
	}
	slices.Reverse(list)
	return list
}

// parentsFirst adds owners, each after the one above it.
func parentsFirst(owners []quota.Owner, changes []quota.Change) ([]quota.Change, error) {
	there := map[string]bool{"": true}
	for todo := owners; len(todo) > 0; {
		var later []quota.Owner
		for _, o := range todo {
			if !there[o.Parent] {
				later = append(later, o)
				continue
			}
			there[o.Name] = true
			changes = append(changes, quota.PutOwner{Owner: o})
		}
		if len(later) == len(todo) {
			return nil, fmt.Errorf("owner %q has no parent %q", todo[0].Name, todo[0].Parent)
		}
		todo = later
	}
	return changes, nil
}
