package history

import (
	"slices"

	"github.com/mpool-go/mpool/api"
)

// lost says that a call's answer does not say whether it was done.
func (c *call) lost() bool { return c.Code == api.EUNKNOWN }

// undone says that a call has done nothing: the connection broke, or its handle was of
// one that has.
func (c *call) undone() bool { return c.Code == api.ECONNRESET || c.Code == api.EBADF }

// either returns one state or the other.
func either[S comparable](a, b S) []S {
	if a == b {
		return []S{a}
	}
	return []S{a, b}
}

// only returns the state if it can be.
func only[S comparable](s S, can bool) []S {
	if can {
		return []S{s}
	}
	return nil
}

// set is a small set of numbers, which can be compared.
type set struct {
	list [32]uint64 // sorted, then zeros
	n    int
}

func (s set) has(v uint64) bool { return slices.Contains(s.list[:s.n], v) }

func (s set) with(v uint64) set {
	i, found := slices.BinarySearch(s.list[:s.n], v)
	if found {
		return s
	}
	if s.n == len(s.list) {
		panic("history: a set is too small")
	}
	copy(s.list[i+1:], s.list[i:s.n])
	s.list[i] = v
	s.n++
	return s
}

func (s set) without(v uint64) set {
	i, found := slices.BinarySearch(s.list[:s.n], v)
	if !found {
		return s
	}
	copy(s.list[i:], s.list[i+1:s.n])
	s.n--
	s.list[s.n] = 0
	return s
}

// alone says that v is all there is.
func (s set) alone(v uint64) bool { return s.n == 1 && s.list[0] == v }
