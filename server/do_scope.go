package server

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/scope"
)

// mustHaveScopes refuses where clients are not counted in scopes.
func (r *request) mustHaveScopes() (*Scopes, error) {
	if s := r.s.srv.opt.Scopes; s != nil {
		return s, nil
	}
	return nil, api.Errorf(api.ENOTSUP, "", "the daemon counts in no scopes")
}

// mayShow says whether the asker may know of a scope: an administrator of all, others
// of what is the daemon's and of their own user and processes.
func (r *request) mayShow(name string) bool {
	if r.s.peer.admin {
		return true
	}
	user := fmt.Sprintf("user:%d", r.s.peer.uid)
	client := fmt.Sprintf("client:%d/", r.s.peer.uid)
	switch class := scopeClass(name); class {
	case scope.SystemName, scope.TransientName, "service":
		return true
	default:
		return name == user || strings.HasPrefix(name, client)
	}
}

// scopeClass returns the part of a scope's name before the colon.
func scopeClass(name string) string {
	class, _, _ := strings.Cut(name, ":")
	return class
}

// scopeClasses are what scopes' names begin with. Those behind the first two stand for
// several scopes.
var scopeClasses = []string{scope.SystemName, scope.TransientName, "service", "user", "client", "session"}

func scopeList(r *request, m *ioctl.ScopesAsk) (ioctl.Message, error) {
	s, err := r.mustHaveScopes()
	if err != nil {
		return nil, err
	}
	r.s.srv.followPools()
	if m.Name != "" {
		return r.scopeShow(s, m.Name)
	}
	list := slices.DeleteFunc(s.List(), func(e scope.Entry) bool { return e.Scope <= m.After || !r.mayShow(e.Scope) })
	slices.SortStableFunc(list, func(a, b scope.Entry) int { return cmp.Compare(a.Scope, b.Scope) })
	most := ioctl.ScopeEntriesPerPage / scope.NumKinds * scope.NumKinds // all kinds of each
	reply := &ioctl.ScopesReply{More: len(list) > most}
	for _, e := range list[:min(len(list), most)] {
		reply.Entries = append(reply.Entries, scopeInfo(e))
	}
	return reply, nil
}

func scopeInfo(e scope.Entry) ioctl.ScopeInfo {
	return ioctl.ScopeInfo{
		Scope: e.Scope, Kind: e.Kind.String(), Used: e.Used, Limit: e.Limit, Origin: e.Origin, Refused: e.Refused,
	}
}

// scopeShow describes one scope that is open, or what the limits of each are that begin
// with a class.
func (r *request) scopeShow(s *Scopes, name string) (ioctl.Message, error) {
	list, err := s.m.Show(name)
	if errors.Is(err, scope.ErrNotFound) && slices.Contains(scopeClasses[2:], name) {
		list, err = s.m.Explain(name), nil
	} else if err == nil && !r.mayShow(name) {
		err = scope.ErrNotFound
	}
	if err != nil {
		return nil, api.Errorf(api.ENOENT, "", "no scope %q is open", name)
	}
	return scopesReply(list), nil
}

func scopesReply(list []scope.Entry) *ioctl.ScopesReply {
	reply := &ioctl.ScopesReply{}
	for _, e := range list {
		reply.Entries = append(reply.Entries, scopeInfo(e))
	}
	return reply
}

// scopeSet sets limits while running, and answers with the scope as it is then.
func scopeSet(r *request, m *ioctl.ScopeSet) (ioctl.Message, error) {
	if err := r.mustAdmin(); err != nil {
		return nil, err
	}
	s, err := r.mustHaveScopes()
	if err != nil {
		return nil, err
	}
	if class, which, several := strings.Cut(m.Name, ":"); !slices.Contains(scopeClasses, class) ||
		several && (which == "" || slices.Contains(scopeClasses[:2], class)) {
		return nil, api.Errorf(api.EINVAL, "", "scope %q: want one of %s, or such as service:POOL, user:UID, client:UID/PID",
			m.Name, strings.Join(scopeClasses, ", "))
	}
	limits := make(scope.Limits)
	for _, l := range m.Limits {
		k, limit, err := settingOf(l)
		if err != nil {
			return nil, api.Errorf(api.EINVAL, "", "%s", strings.TrimPrefix(err.Error(), scope.ErrInvalid.Error()+": "))
		}
		limits[k] = limit
	}
	if err := s.Set(m.Name, limits); err != nil {
		return nil, &api.Error{Code: api.EINVAL, Detail: "the limits cannot be set", Err: err}
	}
	for _, l := range m.Limits {
		r.s.srv.log.Info("limit of a scope set", r.s.who(), slog.String("scope", m.Name),
			slog.String("kind", l.Kind), slog.String("limit", l.Limit))
	}
	list, err := s.m.Show(m.Name)
	if err != nil { // it is not open
		list = s.m.Explain(m.Name)
	}
	return scopesReply(list), nil
}

// settingOf reads a limit to be set; "default" is the zero Limit.
func settingOf(l ioctl.ScopeLimit) (scope.Kind, scope.Limit, error) {
	k, err := scope.ParseKind(l.Kind)
	if err != nil || l.Limit == "default" {
		return k, scope.Limit{}, err
	}
	limit, err := scope.ParseLimit(l.Limit)
	if err == nil {
		err = limit.Check(k)
	}
	return k, limit, err
}
