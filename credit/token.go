package credit

import (
	"cmp"
	"fmt"
	"strings"
)

// Depth is how many levels of owners there may be. The root's is 0; an owner of
// the last level lends to nobody.
const Depth = 4

// Token orders the grants of a resource: of two grants of the same atoms, the
// later one has the greater token. Who does the work on a resource refuses a
// token that is older than one that it was told ([Guard]).
//
// Word i is numbered by the owner at level i, so that it can order what it grants
// without asking above: the words of those above it come first, and rise
// whenever they lend the same atoms anew.
type Token [Depth]uint64

// Compare returns -1, 0 or 1 as t is older than, equal to, or newer than u.
func (t Token) Compare(u Token) int {
	for i := range t {
		if c := cmp.Compare(t[i], u[i]); c != 0 {
			return c
		}
	}
	return 0
}

func (t Token) String() string {
	n := Depth
	for n > 1 && t[n-1] == 0 {
		n--
	}
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(t[:n]), " ", "."), "[]")
}

// Version says which contents a resource has: equal versions, equal contents. It
// only rises. An mblock's is its birth stamp; a log's is its generation and its
// length.
type Version [2]uint64

// Compare returns -1, 0 or 1 as v is older than, equal to, or newer than w.
func (v Version) Compare(w Version) int {
	if c := cmp.Compare(v[0], w[0]); c != 0 {
		return c
	}
	return cmp.Compare(v[1], w[1])
}

// later returns the newer of two versions.
func later(v, w Version) Version {
	if v.Compare(w) < 0 {
		return w
	}
	return v
}
