package server

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/mpool-go/mpool/scope"
)

// ScopeFileError says what is wrong in the limits of a configuration.
type ScopeFileError struct {
	Scope, Kind string // Kind may be ""
	Detail      string
}

func (e *ScopeFileError) Error() string {
	return fmt.Sprintf("scope %s: %s: %s", e.Scope, e.Kind, e.Detail)
}

// maxScopeLimits bounds the scopes that limits are said for.
const maxScopeLimits = 1 << 16

// ParseScopeLimits reads the limits of a configuration: by the names of scopes and of
// kinds, each a number or what [scope.ParseLimit] reads. The error joins a
// *ScopeFileError for each that is wrong.
func ParseScopeLimits(file map[string]map[string]any) (scope.Layer, error) {
	if len(file) > maxScopeLimits {
		return nil, &ScopeFileError{Detail: fmt.Sprintf("%d scopes: at most %d", len(file), maxScopeLimits)}
	}
	layer := make(scope.Layer)
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(file)) {
		layer[name] = make(scope.Limits)
		for _, kind := range slices.Sorted(maps.Keys(file[name])) {
			k, l, err := parseScopeLimit(kind, file[name][kind])
			if err != nil {
				errs = append(errs, &ScopeFileError{Scope: name, Kind: kind, Detail: strings.TrimPrefix(err.Error(), scope.ErrInvalid.Error()+": ")})
				continue
			}
			layer[name][k] = l
		}
	}
	return layer, errors.Join(errs...)
}

func parseScopeLimit(kind string, v any) (scope.Kind, scope.Limit, error) {
	k, err := scope.ParseKind(kind)
	if err != nil {
		return 0, scope.Limit{}, err
	}
	text := fmt.Sprint(v)
	switch v := v.(type) {
	case int64:
		text = strconv.FormatInt(v, 10)
	case string:
	default:
		return 0, scope.Limit{}, fmt.Errorf("is %v: want a number or a string", v)
	}
	l, err := scope.ParseLimit(text)
	if err != nil {
		return 0, scope.Limit{}, err
	}
	return k, l, l.Check(k)
}

// Effective returns the limits in effect where any are said: those of System and
// Transient, those of all services, users, clients and sessions, and those of the
// scopes that the configuration names. Nothing is used in them.
func (s *Scopes) Effective() []scope.Entry {
	names := slices.Clone(scopeClasses)
	for _, name := range slices.Sorted(maps.Keys(s.opt.File)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var list []scope.Entry
	for _, name := range names {
		for _, e := range s.m.Explain(name) {
			if e.Origin != scope.NoOrigin {
				list = append(list, e)
			}
		}
	}
	return list
}
