package client

import (
	"context"
	"iter"

	"github.com/mpool-go/mpool/ioctl"
)

type (
	// ScopeInfo is what the daemon knows of one kind of one scope.
	ScopeInfo = ioctl.ScopeInfo
	// ScopeLimit is a limit to be set: "default" takes back what was set.
	ScopeLimit = ioctl.ScopeLimit
)

// Scopes iterates over what is used and may be used in the daemon, by scope and kind: of
// the scope of a name or, with "", of all that the caller may know of, in the order of
// their names. An error is the last that the loop gets: ENOENT when no scope of that name
// is open, ECONNRESET when the connection breaks after the first entry was given.
func (c *Conn) Scopes(ctx context.Context, name string) iter.Seq2[ScopeInfo, error] {
	const op = ioctl.OpScopeList
	return func(yield func(ScopeInfo, error) bool) {
		var s stream[ScopeInfo]
		s.yield = yield
		err := c.run(ctx, op, again, func(l *link) error {
			for ask := (&ioctl.ScopesAsk{Name: name}); ; {
				reply := &ioctl.ScopesReply{}
				if err := l.do(ctx, op, ask, reply); err != nil {
					return s.broken(op, err)
				}
				if !s.give(reply.Entries) || !reply.More || len(reply.Entries) == 0 {
					return nil
				}
				ask.After = reply.Entries[len(reply.Entries)-1].Scope
			}
		})
		s.end(err)
	}
}

// SetScope sets limits of a scope, until the daemon ends or reads its configuration, or of all whose names begin with
// name before the colon, and returns the scope as it is then. Only administrators may:
// EPERM. It is all or nothing: EINVAL.
func (c *Conn) SetScope(ctx context.Context, name string, limits []ScopeLimit) ([]ScopeInfo, error) {
	const op = ioctl.OpScopeSet
	reply := &ioctl.ScopesReply{}
	err := c.run(ctx, op, again, func(l *link) error {
		return l.do(ctx, op, &ioctl.ScopeSet{Name: name, Limits: limits}, reply)
	})
	return reply.Entries, err
}
