package credit

import (
	"fmt"
	"strings"
)

// OwnerID names an owner, once for all its life: who starts anew without what
// it knew has another id. 0 is nobody.
type OwnerID uint64

// Resource is what credits are for: one thing of a type.
type Resource struct {
	Type *Type
	ID   uint64
}

func (r Resource) String() string {
	if r.Type == nil {
		return fmt.Sprintf("no type:%x", r.ID)
	}
	return fmt.Sprintf("%s:%x", r.Type.name, r.ID)
}

// Type says what the atoms of a kind of resource are, which of them conflict,
// and what becomes of a conflict. Types are made by [NewType] and never changed;
// they are compared by address.
type Type struct {
	name      string
	modes     []string // name of bit i
	clash     [256]Modes
	all       Modes
	whole     Credit // all modes at all positions
	limit     uint64 // positions there are
	keep      bool
	divisible bool
	chunk     uint64
}

// TypeConfig is what a type is.
type TypeConfig struct {
	Name  string
	Modes []string // at most 8, bit 0 first
	// Conflicts lists pairs of modes that two holders may not have at one
	// position; both orders are meant. A pair of a mode with itself makes it
	// exclusive.
	Conflicts [][2]string
	Positions uint64 // of one resource; 0: End
	// Keep is the policy for conflicts with a credit that is held past the
	// call-back's deadline: false, it is taken and its holder fenced; true, the
	// request waits for as long as it takes.
	Keep bool
	// Divisible resources are asked for by amount, not by position: any so many
	// positions will do. They have one mode, which is exclusive, and are kept.
	Divisible bool
	Chunk     uint64 // a divisible resource is borrowed in multiples of this
}

// NewType returns a type. It panics if the description contradicts itself,
// which is a mistake in the program.
func NewType(c TypeConfig) *Type {
	t := &Type{
		name: c.Name, modes: c.Modes, limit: c.Positions, keep: c.Keep || c.Divisible,
		divisible: c.Divisible, chunk: max(c.Chunk, 1),
	}
	if t.limit == 0 {
		t.limit = End
	}
	if len(c.Modes) == 0 || len(c.Modes) > 8 || c.Divisible && len(c.Modes) != 1 {
		panic("credit: a type has 1 to 8 modes, a divisible one has 1")
	}
	t.all = Modes(1<<len(c.Modes) - 1)
	t.whole = Credit{{0, t.limit, t.all}}
	for _, pair := range c.Conflicts {
		x, y := t.Mode(pair[0]), t.Mode(pair[1])
		if x == 0 || y == 0 {
			panic("credit: type " + c.Name + " has a conflict of modes that it does not have")
		}
		for m := range t.clash {
			if Modes(m)&x != 0 {
				t.clash[m] |= y
			}
			if Modes(m)&y != 0 {
				t.clash[m] |= x
			}
		}
	}
	if c.Divisible && t.clash[1] != 1 {
		panic("credit: the mode of a divisible type is exclusive")
	}
	return t
}

// Name returns the type's name.
func (t *Type) Name() string { return t.name }

// Mode returns the set of the one mode of that name, or none.
func (t *Type) Mode(name string) Modes {
	for i, n := range t.modes {
		if n == name {
			return 1 << i
		}
	}
	return 0
}

// All returns all that there is of one resource. It is the same memory each time.
func (t *Type) All() Credit { return t.whole }

// Conflict says whether two holders may not have c and d at the same time.
func (t *Type) Conflict(c, d Credit) bool {
	for i, j := 0, 0; i < len(c) && j < len(d); {
		if c[i].First < d[j].End && d[j].First < c[i].End && c[i].Modes&t.clash[d[j].Modes] != 0 {
			return true
		}
		if c[i].End <= d[j].End {
			i++
		} else {
			j++
		}
	}
	return false
}

// Against returns the atoms of c that conflict with one of d.
func (t *Type) Against(c, d Credit) Credit {
	if len(c) == 0 || len(d) == 0 {
		return nil
	}
	return combine(c, d, func(x, y Modes) Modes { return x & t.clash[y] })
}

// Format returns c with the modes' names, such as "read+append[0,4096)".
func (t *Type) Format(c Credit) string {
	var b strings.Builder
	for i, s := range c {
		if i > 0 {
			b.WriteByte(' ')
		}
		plus := ""
		for bit, name := range t.modes {
			if s.Modes&(1<<bit) != 0 {
				b.WriteString(plus + name)
				plus = "+"
			}
		}
		b.WriteString(strings.TrimLeft(Credit{s}.String(), "0123456789abcdef"))
	}
	return b.String()
}

// valid says whether c is a credit that this type may have.
func (t *Type) valid(c Credit) bool {
	if !c.normal() || len(c) > 0 && c[len(c)-1].End > t.limit {
		return false
	}
	for _, s := range c {
		if s.Modes&^t.all != 0 {
			return false
		}
	}
	return true
}

// The modes of Access.
const (
	Read   Modes = 1 << iota // others may read and append, too
	Append                   // one appends, others may read what was there
	Write                    // nobody else
	Delete                   // nobody else
)

// Access is the right to read, append to, write or delete bytes of an object.
// Append is asked for at all positions, since nobody knows where the end will be;
// so is delete.
var Access = NewType(TypeConfig{
	Name:  "access",
	Modes: []string{"read", "append", "write", "delete"},
	Conflicts: [][2]string{
		{"append", "append"},
		{"write", "read"},
		{"write", "append"},
		{"write", "write"},
		{"delete", "read"},
		{"delete", "append"},
		{"delete", "write"},
		{"delete", "delete"},
	},
})

// Space is bytes of a class of drives, lent in chunks of 1 GiB. A position is
// one byte of all there is; which ones somebody holds says nothing of where on
// a drive they are.
var Space = NewType(TypeConfig{
	Name: "space", Modes: []string{"use"}, Conflicts: [][2]string{{"use", "use"}},
	Divisible: true, Chunk: 1 << 30,
})

// Activation is the right to have a pool active: one host's at a time, and
// never taken from who has it active.
var Activation = NewType(TypeConfig{
	Name: "activation", Modes: []string{"activate"}, Conflicts: [][2]string{{"activate", "activate"}},
	Positions: 1, Keep: true,
})
