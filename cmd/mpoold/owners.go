package main

import (
	"fmt"
	"math"
	"os/user"
	"strconv"

	"github.com/mpool-go/mpool/server"
)

// ownerRule lets a user act as an owner within a pool.
type ownerRule struct {
	Pool  string `toml:"pool" comment:"its name"`
	UID   any    `toml:"uid" comment:"a number, or a user's name in /etc/passwd"`
	Owner string `toml:"owner" comment:"its name in the pool, or its path: parent/child"`
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

// Limits of names; the server has the same.
const (
	maxPoolName  = 63
	maxOwnerPath = 1024
)

func ownerProblems(rules []ownerRule) []problem {
	var list []problem
	seen := make(map[server.OwnerRule]bool)
	for i, r := range rules {
		key := fmt.Sprintf("owner[%d]", i)
		if len(r.Pool) < 1 || len(r.Pool) > maxPoolName {
			list = append(list, problem{key + ".pool", fmt.Sprintf("is %q: want a pool's name of 1 to %d bytes", r.Pool, maxPoolName)})
		}
		if len(r.Owner) < 1 || len(r.Owner) > maxOwnerPath {
			list = append(list, problem{key + ".owner", fmt.Sprintf("is %q: want an owner's name of 1 to %d bytes", r.Owner, maxOwnerPath)})
		}
		uid, err := r.uid()
		if err != nil {
			list = append(list, problem{key + ".uid", err.Error()})
			continue
		}
		rule := server.OwnerRule{Pool: r.Pool, UID: uid, Owner: r.Owner}
		if seen[rule] {
			list = append(list, problem{key, "says the same as one before it"})
		}
		seen[rule] = true
	}
	return list
}

// ownerRules returns the rules as the server takes them. They are valid.
func ownerRules(rules []ownerRule) ([]server.OwnerRule, error) {
	list := make([]server.OwnerRule, 0, len(rules))
	for i, r := range rules {
		uid, err := r.uid()
		if err != nil {
			return nil, fmt.Errorf("owner[%d].uid %w", i, err)
		}
		list = append(list, server.OwnerRule{Pool: r.Pool, UID: uid, Owner: r.Owner})
	}
	return list, nil
}
