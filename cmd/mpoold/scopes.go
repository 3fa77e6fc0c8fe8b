package main

import (
	"log/slog"

	"github.com/mpool-go/mpool/server"
)

// newScopes makes the scopes of a configuration. keep leaves the Go runtime's memory
// limit as it is.
func newScopes(c *config, log *slog.Logger, keep bool) (*server.Scopes, error) {
	file, err := server.ParseScopeLimits(c.Scopes)
	if err != nil {
		return nil, err
	}
	return server.NewScopes(server.ScopeOptions{
		Limits: c.Limits.server(), File: file, Logger: log, KeepGoLimit: keep,
	})
}
