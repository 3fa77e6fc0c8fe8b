package quota

import (
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of what a store has to keep.
const (
	MaxName     = 255     // bytes of the name of a class or an owner, of a real id or a request id
	MaxAmounts  = 64      // classes of one claim
	MaxDepth    = 64      // owners above one another
	MaxRequests = 8       // request ids remembered per claim, the first and the latest
	MaxEnded    = 4096    // request ids remembered of claims that have ended
	MaxSubtree  = 1 << 16 // claims below one another that one call changes
)

// Limit is how much an owner may hold: from 0 up, or Unlimited.
type Limit int64

// Unlimited is the limit of what is not limited. It is no number to calculate with.
const Unlimited Limit = -1

// String returns the number, or "unlimited".
func (l Limit) String() string {
	if l == Unlimited {
		return "unlimited"
	}
	return strconv.FormatInt(int64(l), 10)
}

// fits says whether asked may be added to used, in arithmetic that cannot overflow.
func (l Limit) fits(used, asked int64) bool {
	if l == Unlimited {
		return used <= math.MaxInt64-asked
	}
	return asked <= int64(l) && used <= int64(l)-asked
}

// Unit says what a class's numbers are.
type Unit uint8

// The units. The numbers are part of stored formats.
const (
	Count Unit = 0
	Bytes Unit = 1
)

func (u Unit) String() string {
	switch u {
	case Count:
		return "count"
	case Bytes:
		return "bytes"
	default:
		return "unknown"
	}
}

// Class is a resource class. Min, Max and Step are of the amount in one claim.
type Class struct {
	Name    string
	Unit    Unit
	Total   Limit // of all owners together
	Default Limit // of an owner that has none of its own
	Min     int64 // least of one claim, 1 or more
	Max     Limit // most of one claim
	Step    int64 // a claim is a multiple of it, 1 or more
	// External says that the records of the class are kept elsewhere, and that the
	// store adds them up: it has limits and usage here, and no claims.
	External bool
}

// NewClass returns a class without any limit.
func NewClass(name string, unit Unit) Class {
	return Class{Name: name, Unit: unit, Total: Unlimited, Default: Unlimited, Min: 1, Max: Unlimited, Step: 1}
}

func (c *Class) validate() error {
	switch {
	case !validName(c.Name):
		return invalid("class name %q: want 1 to %d bytes of printable UTF-8 without spaces, '=' and ','", c.Name, MaxName)
	case c.Unit > Bytes:
		return invalid("class %s: unit %d is none", c.Name, c.Unit)
	case c.Total < Unlimited, c.Default < Unlimited, c.Max < Unlimited:
		return invalid("class %s: total %d, default %d, max %d: want 0 or more, or unlimited", c.Name, c.Total, c.Default, c.Max)
	case c.Min < 1, c.Step < 1:
		return invalid("class %s: min %d, step %d: want 1 or more", c.Name, c.Min, c.Step)
	case c.Max != Unlimited && (int64(c.Max) < c.Min || int64(c.Max) < c.Step):
		return invalid("class %s: max %d is less than min %d or step %d: nothing could be claimed", c.Name, c.Max, c.Min, c.Step)
	}
	return nil
}

// admits says why an amount cannot be that of one claim. One that shrinks may be
// over a max that came after it.
func (c *Class) admits(n int64, shrinks bool) error {
	switch {
	case n < c.Min:
		return invalid("%d of %s: one claim has %d at least", n, c.Name, c.Min)
	case n%c.Step != 0:
		return invalid("%d of %s: one claim is a multiple of %d", n, c.Name, c.Step)
	case c.Max != Unlimited && n > int64(c.Max) && !shrinks:
		return invalid("%d of %s: one claim has %d at most", n, c.Name, c.Max)
	}
	return nil
}

// Owner is who holds. Parent is the owner above, "" for one at the top.
type Owner struct {
	Name   string
	Parent string
}

// OwnerLimit is a limit set for one owner.
type OwnerLimit struct {
	Owner string
	Class string
	Limit Limit
}

// Amount is so much of a class.
type Amount struct {
	Class string
	N     int64
}

// ID names a claim. An id is never given twice by one store.
type ID uint64

// String returns 16 hex digits.
func (id ID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// ParseID is the inverse of String. Anything else is not ok.
func ParseID(s string) (id ID, ok bool) {
	if len(s) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 16, 64)
	return ID(n), err == nil && ID(n).String() == s
}

// State is a claim's state.
type State uint8

// The states. The numbers are part of stored formats.
const (
	Reserved State = 1
	Held     State = 2
)

func (s State) String() string {
	switch s {
	case Reserved:
		return "reserved"
	case Held:
		return "held"
	default:
		return "unknown"
	}
}

// Claim is a record of what an owner holds. Claims that are returned are the store's
// own records: nobody writes to them, nor to what they refer to.
type Claim struct {
	ID      ID
	Parent  ID // the claim it lies under, or 0
	Owner   string
	State   State
	Expires time.Time // of a reserved one, in whole milliseconds; it is over from then on
	Real    string    // of a held one: the caller's own id
	Amounts []Amount  // sorted by class, each once, 1 or more
	// Requests are those whose repetition changes nothing.
	Requests []Request
}

// amount returns how much of a class the claim has.
func (c *Claim) amount(class string) int64 {
	for _, a := range c.Amounts {
		if a.Class == class {
			return a.N
		}
	}
	return 0
}

// Request remembers a call that was done under a request id. Sum is a hash of what
// was asked.
type Request struct {
	ID  string
	Sum uint64
}

// Sum is usage: how much is held and how much reserved. Both count.
type Sum struct {
	Held     int64
	Reserved int64
}

// Total is what counts against limits.
func (s Sum) Total() int64 { return s.Held + s.Reserved }

func validName(s string) bool {
	if s == "" || len(s) > MaxName || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == '=' || r == ',' {
			return false
		}
	}
	return true
}

// ValidOwner says whether an owner may have the name: 1 to MaxName bytes of printable
// UTF-8, spaces included.
func ValidOwner(name string) bool { return validID(name) }

func validOwner(name string) error {
	if !ValidOwner(name) {
		return invalid("owner name %q: want 1 to %d bytes of printable UTF-8", name, MaxName)
	}
	return nil
}

// validID is validName with what a caller's own ids may also have.
func validID(s string) bool {
	if s == "" || len(s) > MaxName || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsGraphic(r) {
			return false
		}
	}
	return true
}
