package server

import (
	"fmt"
	"math"
	"runtime/debug"
	"strconv"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/scope"
)

// percent returns a share of the machine.
func percent(n int) scope.Limit {
	l, err := scope.ParseLimit(strconv.Itoa(n) + "%")
	if err != nil {
		panic("server: " + err.Error())
	}
	return l
}

// defaultScopes are the limits where nobody says any.
func defaultScopes() scope.Layer {
	return scope.Layer{
		scope.SystemName: {scope.Memory: percent(50), scope.Descriptors: percent(90)},
		"client":         {scope.Memory: percent(10)},
	}
}

// limitedScopes are the limits that Limits say.
func limitedScopes(l Limits) scope.Layer {
	return scope.Layer{
		scope.SystemName:    {scope.Inbound: scope.Fixed(int64(l.Sessions))},
		scope.TransientName: {scope.Inbound: scope.Fixed(int64(max(l.Sessions/2, 64)))},
	}
}

// scopeSetting says how a limit is changed.
func scopeSetting(name string, k scope.Kind) string {
	if class := scopeClass(name); class == "client" || class == "session" {
		name = class // a single one is soon over
	}
	key := fmt.Sprintf("[scopes.%q] %v", name, k)
	switch {
	case name == scope.SystemName && k == scope.Inbound:
		key = "[limits] sessions"
	case name == scope.SystemName || name == scope.TransientName:
		key = fmt.Sprintf("[scopes.%s] %v", name, k)
	}
	return fmt.Sprintf("%s in mpoold's configuration, or mpoolctl scope set %s %v=N", key, name, k)
}

// sessionsMost returns how many sessions there may be.
func (s *Scopes) sessionsMost() int {
	return int(min(s.m.System().Limit(scope.Inbound), s.m.System().Limit(scope.Connections), maxSessions))
}

// arenasMost returns how many bytes of arenas there may be: half of the daemon's memory
// at most, so that there is always some for messages.
func (s *Scopes) arenasMost() int64 {
	return min(s.arenas, s.m.System().Limit(scope.Memory)/2)
}

// tellRuntime gives the Go runtime what is the daemon's and not the arenas', as a limit
// near which it collects garbage more often; and bounds what is kept of buffers.
func (s *Scopes) tellRuntime() {
	limit := s.m.System().Limit(scope.Memory)
	bdev.KeepBuffers(limit / keptPart)
	if s.opt.KeepGoLimit {
		return
	}
	if limit == math.MaxInt64 {
		debug.SetMemoryLimit(math.MaxInt64)
		return
	}
	debug.SetMemoryLimit(max(limit-s.arenasMost()-programBytes, fixedBytes))
}
