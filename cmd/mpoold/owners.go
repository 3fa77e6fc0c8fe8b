package main

import (
	"fmt"
	"math"
	"os/user"
	"strconv"
)

// ownerRule lets a user act as an owner within a pool.
type ownerRule struct {
	Pool  string `toml:"pool" comment:"its name"`
	UID   any    `toml:"uid" comment:"a number, or a user's name in /etc/passwd"`
	Owner string `toml:"owner" comment:"its name in the pool"`
}

// actor is an ownerRule whose user is known.
type actor struct {
	Pool  string
	UID   uint32
	Owner string
}

// uid returns the user's number.
func (r ownerRule) uid() (uint32, error) {
	switch v := r.UID.(type) {
	case nil:
		return 0, fmt.Errorf("is not set: want a number or a user's name")
	case int64:
		// The last number stands for no user.
		if v < 0 || v >= math.MaxUint32 {
			return 0, fmt.Errorf("is %d: want 0 to %d", v, uint32(math.MaxUint32-1))
		}
		return uint32(v), nil
	case string:
		u, err := user.Lookup(v)
		if err != nil {
			return 0, fmt.Errorf("is %q: there is no such user on this host; say the number", v)
		}
		n, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("is %q: that user's number is %q", v, u.Uid)
		}
		return uint32(n), nil
	default:
		return 0, fmt.Errorf("is %v: want a number or a user's name", v)
	}
}

func ownerProblems(rules []ownerRule) []problem {
	var list []problem
	seen := make(map[actor]bool)
	for i, r := range rules {
		key := fmt.Sprintf("owner[%d]", i)
		if r.Pool == "" {
			list = append(list, problem{key + ".pool", "is empty: want a pool's name"})
		}
		if r.Owner == "" {
			list = append(list, problem{key + ".owner", "is empty: want an owner's name"})
		}
		uid, err := r.uid()
		if err != nil {
			list = append(list, problem{key + ".uid", err.Error()})
			continue
		}
		rule := actor{Pool: r.Pool, UID: uid, Owner: r.Owner}
		if seen[rule] {
			list = append(list, problem{key, "says the same as one before it"})
		}
		seen[rule] = true
	}
	return list
}

// ownerRules returns the rules as the server takes them. They are valid.
func ownerRules(rules []ownerRule) ([]actor, error) {
	list := make([]actor, 0, len(rules))
	for i, r := range rules {
		uid, err := r.uid()
		if err != nil {
			return nil, fmt.Errorf("owner[%d].uid %w", i, err)
		}
		list = append(list, actor{Pool: r.Pool, UID: uid, Owner: r.Owner})
	}
	return list, nil
}
