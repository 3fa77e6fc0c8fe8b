package main

import (
	"fmt"
	"os/user"
	"strconv"

	"github.com/mpool-go/mpool/api"
)

// parseClass reads a media class.
func parseClass(s string) (api.Class, error) {
	for _, c := range []api.Class{api.ClassCapacity, api.ClassStaging} {
		if s == c.String() {
			return c, nil
		}
	}
	return 0, fmt.Errorf("class %q: want capacity or staging", s)
}

// classValue is a flag that holds a media class.
type classValue api.Class

func (v *classValue) String() string { return api.Class(*v).String() }

func (v *classValue) Set(s string) error {
	c, err := parseClass(s)
	*v = classValue(c)
	return err
}

func (v *classValue) Type() string { return "CLASS" }

// parseState reads an object's state.
func parseState(s string) (api.State, error) {
	for _, st := range []api.State{api.StateUncommitted, api.StateCommitted, api.StateDeleting} {
		if s == st.String() {
			return st, nil
		}
	}
	return 0, usagef("state %q: want uncommitted, committed or deleting", s)
}

// tagValue is a flag that holds an application's tag; tag is nil when it is not given.
type tagValue struct{ tag *uint64 }

func (v *tagValue) String() string {
	if v.tag == nil {
		return ""
	}
	return strconv.FormatUint(*v.tag, 10)
}

func (v *tagValue) Set(s string) error {
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return fmt.Errorf("tag %q: want a number of 64 bits", s)
	}
	v.tag = &n
	return nil
}

func (v *tagValue) Type() string { return "N" }

// countValue is a flag that holds a number from 0; 0 is shown as no default.
type countValue uint64

func (v *countValue) String() string {
	if *v == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(*v), 10)
}

func (v *countValue) Set(s string) error {
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return fmt.Errorf("%q: want a number from 0", s)
	}
	*v = countValue(n)
	return nil
}

func (v *countValue) Type() string { return "N" }

// idValue is a flag that holds a user's or group's number, given as a number
// or as a name.
type idValue struct {
	id     uint32
	lookup func(name string) (string, error)
}

func (v *idValue) String() string { return "" }

func (v *idValue) Set(s string) error {
	id, err := parseNumericID(s, v.lookup)
	v.id = id
	return err
}

func (v *idValue) Type() string { return "ID" }

// parseNumericID reads a number, or a name that lookup knows.
func parseNumericID(s string, lookup func(name string) (string, error)) (uint32, error) {
	if _, err := strconv.ParseUint(s, 10, 32); err != nil {
		if s, err = lookup(s); err != nil {
			return 0, err
		}
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

// lookupUser gives a user's number.
func lookupUser(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

// lookupGroup gives a group's number.
func lookupGroup(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}

// modeValue is a flag that holds permission bits in octal.
type modeValue struct{ mode uint32 }

func (v *modeValue) String() string { return "" }

func (v *modeValue) Set(s string) error {
	m, err := parseMode(s)
	v.mode = m
	return err
}

func (v *modeValue) Type() string { return "MODE" }

// parseMode reads permission bits.
func parseMode(s string) (uint32, error) {
	m, err := strconv.ParseUint(s, 8, 32)
	if err != nil || m > 0o777 {
		return 0, fmt.Errorf("mode %q: want octal permission bits such as 0660", s)
	}
	return uint32(m), nil
}
