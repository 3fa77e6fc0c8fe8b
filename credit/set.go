package credit

import (
	"fmt"
	"math"
	"strings"
)

// Modes is a set of ways to use one position of a resource. Each type of
// resource says what its bits mean.
type Modes uint8

// End is the end of a span that has none: every position is below it.
const End = math.MaxUint64

// Span is some modes at the positions from First to before End. What a position
// is depends on the type: a byte of an object, a byte of space.
type Span struct {
	First, End uint64
	Modes      Modes
}

// Credit is a set of atoms, an atom being one mode at one position. It is the
// right to use them, or, in a request, the wish for it.
//
// A Credit is in normal form: its spans have a mode and a length, rise, do not
// overlap, and two that touch have different modes. [Make] gives normal form
// and so does everything that returns a Credit. Nil is no atom. Credits are
// never changed once they are made; they may be shared.
type Credit []Span

// Make returns the credit of all atoms of the spans, which may be in any order
// and overlap. Spans without modes or of no length count for nothing.
func Make(spans ...Span) Credit {
	var c Credit
	for _, s := range spans {
		if s.Modes != 0 && s.First < s.End {
			c = c.Join(Credit{s})
		}
	}
	return c
}

// Join returns the atoms of c or d.
func (c Credit) Join(d Credit) Credit {
	switch {
	case len(c) == 0:
		return d
	case len(d) == 0:
		return c
	}
	return combine(c, d, func(x, y Modes) Modes { return x | y })
}

// Meet returns the atoms of c and d.
func (c Credit) Meet(d Credit) Credit {
	if len(c) == 0 || len(d) == 0 {
		return nil
	}
	return combine(c, d, func(x, y Modes) Modes { return x & y })
}

// Diff returns the atoms of c that are not in d.
func (c Credit) Diff(d Credit) Credit {
	if len(c) == 0 || len(d) == 0 {
		return c
	}
	return combine(c, d, func(x, y Modes) Modes { return x &^ y })
}

// Has says whether all atoms of d are in c.
func (c Credit) Has(d Credit) bool {
	i := 0
	for _, s := range d {
		for pos := s.First; pos < s.End; {
			for i < len(c) && c[i].End <= pos {
				i++
			}
			if i == len(c) || c[i].First > pos || s.Modes&^c[i].Modes != 0 {
				return false
			}
			pos = c[i].End
		}
	}
	return true
}

// Empty says whether c has no atom.
func (c Credit) Empty() bool { return len(c) == 0 }

// Equal says whether c and d have the same atoms.
func (c Credit) Equal(d Credit) bool {
	if len(c) != len(d) {
		return false
	}
	for i := range c {
		if c[i] != d[i] {
			return false
		}
	}
	return true
}

// Size returns the number of positions with a mode in c.
func (c Credit) Size() uint64 {
	n := uint64(0)
	for _, s := range c {
		n += s.End - s.First
	}
	return n
}

// head returns the first n positions of c, or all if there are fewer.
func (c Credit) head(n uint64) Credit {
	for i, s := range c {
		if n == 0 {
			return c[:i:i]
		}
		if size := s.End - s.First; size > n {
			return append(c[:i:i], Span{s.First, s.First + n, s.Modes})
		}
		n -= s.End - s.First
	}
	return c
}

// hull returns all modes of c at all positions from its first to its last.
func (c Credit) hull() Credit {
	if len(c) == 0 {
		return nil
	}
	s := Span{c[0].First, c[len(c)-1].End, 0}
	for _, x := range c {
		s.Modes |= x.Modes
	}
	return Credit{s}
}

// normal says whether c is in normal form; what comes from elsewhere may not be.
func (c Credit) normal() bool {
	for i, s := range c {
		if s.Modes == 0 || s.First >= s.End {
			return false
		}
		if i > 0 && (s.First < c[i-1].End || s.First == c[i-1].End && s.Modes == c[i-1].Modes) {
			return false
		}
	}
	return true
}

// String returns c with its modes as numbers; [Type.Format] knows their names.
func (c Credit) String() string {
	var b strings.Builder
	for i, s := range c {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%x[%d,", s.Modes, s.First)
		if s.End == End {
			b.WriteString("end)")
		} else {
			fmt.Fprintf(&b, "%d)", s.End)
		}
	}
	return b.String()
}

// combine goes along both credits and keeps at each position what f says of
// their modes there. f(0, 0) must be 0.
func combine(a, b Credit, f func(x, y Modes) Modes) Credit {
	var out Credit
	i, j, pos := 0, 0, uint64(0)
	for i < len(a) || j < len(b) {
		x, next := at(a, i, pos, End)
		y, next := at(b, j, pos, next)
		if m := f(x, y); m != 0 && pos < next {
			if n := len(out); n > 0 && out[n-1].End == pos && out[n-1].Modes == m {
				out[n-1].End = next
			} else {
				out = append(out, Span{pos, next, m})
			}
		}
		pos = next
		if i < len(a) && a[i].End <= pos {
			i++
		}
		if j < len(b) && b[j].End <= pos {
			j++
		}
	}
	return out
}

// at returns the modes at pos, where c[i] is the first span that ends behind
// it, and where they may change, at the latest at next.
func at(c Credit, i int, pos, next uint64) (modes Modes, change uint64) {
	switch {
	case i == len(c):
		return 0, next
	case c[i].First <= pos:
		return c[i].Modes, min(next, c[i].End)
	}
	return 0, min(next, c[i].First)
}
