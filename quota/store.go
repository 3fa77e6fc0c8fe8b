package quota

import (
	"context"
	"time"
)

// Generation is a number that rises with every change of a store.
type Generation uint64

// Store keeps the records. It is safe for concurrent use. What it does is short: no
// transaction is open between a View and an Apply.
//
// A store on a database at READ COMMITTED reads the generation, what is asked for,
// and the generation again, and calls f anew if it has changed meanwhile; it applies
// by an update of the one row that has the generation, on condition that it is the
// expected one, together with the changes. A store that hears nothing of an Apply
// says [ErrUnknown].
type Store interface {
	// View calls f with the records as they are at one moment. f is short, calls
	// nothing that waits and keeps nothing but claims. A store that has to ask others
	// may call it several times; the last call counts.
	View(ctx context.Context, f func(Reader)) error
	// Apply makes all changes, in their order, or none, if the generation is the
	// expected one; else it returns [ErrConflict]. After nil they are there for ever,
	// and so is all that the view with that generation had. It may be called with no
	// changes. When it returns it keeps the claims, and not the list of changes; nor is
	// a View's f called after that has returned.
	Apply(ctx context.Context, expect Generation, changes []Change) error
}

// Reader gives the records of one moment.
type Reader interface {
	Generation() Generation
	// NextID returns an id that was never given.
	NextID() ID

	Class(name string) (Class, bool)
	// Classes returns all classes, sorted by name.
	Classes() []Class
	Owner(name string) (Owner, bool)
	// Owners returns all owners, sorted by name.
	Owners() []Owner
	Limit(owner, class string) (Limit, bool)
	// Limits returns all limits that are set, sorted by owner and class.
	Limits() []OwnerLimit

	// Used returns the sum over the claims of an owner and of all below it; of all
	// claims for the owner "".
	Used(owner, class string) Sum

	Claim(id ID) (*Claim, bool)
	// Real returns the claim that is held under a real id.
	Real(name string) (*Claim, bool)
	// Request returns the claim that a request id was used for, which may have ended.
	Request(id string) (r Request, claim ID, ok bool)
	// Children returns the claims right below one, sorted by id.
	Children(id ID) []ID
	// Claims returns all claims, sorted by id.
	Claims() []*Claim
	// NextExpiry returns when the first reservation's time is over, if there is one.
	NextExpiry() (time.Time, bool)
	// Due returns the reserved claims whose time is not after now, sorted by id.
	Due(now time.Time) []*Claim
}

// Change is one change of a store's records.
type Change interface{ isChange() }

// The changes.
type (
	// PutClass defines a class or defines it anew.
	PutClass struct{ Class Class }
	// DropClass removes a class, of which nothing is left.
	DropClass struct{ Name string }
	// PutOwner adds an owner, whose parent is there.
	PutOwner struct{ Owner Owner }
	// PutLimit sets an owner's limit.
	PutLimit struct{ Limit OwnerLimit }
	// DropLimit removes one. What is not there is removed.
	DropLimit struct{ Owner, Class string }
	// PutClaim makes a claim, or replaces the one with its id.
	PutClaim struct{ Claim *Claim }
	// DropClaim removes a claim, by a request that is remembered if it has an id.
	DropClaim struct {
		ID      ID
		Request Request
	}
)

func (PutClass) isChange()  {}
func (DropClass) isChange() {}
func (PutOwner) isChange()  {}
func (PutLimit) isChange()  {}
func (DropLimit) isChange() {}
func (PutClaim) isChange()  {}
func (DropClaim) isChange() {}
