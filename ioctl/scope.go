package ioctl

// The lengths of the longest texts of scopes, in bytes.
const (
	MaxScopeName   = 128 // of a scope
	MaxScopeKind   = 32  // of a kind
	MaxScopeLimit  = 32
	MaxScopeOrigin = 96
)

// ScopeInfo is what is known of one kind of one scope.
type ScopeInfo struct {
	Scope   string // its name
	Kind    string // such as "memory"
	Used    int64  // now; memory in bytes
	Limit   string // a number, "unlimited" or "block"
	Origin  string // where the limit is from
	Refused uint64 // since the scope was made
}

// ScopesAsk asks for a page of scopes, in the order of their names.
type ScopesAsk struct {
	After string // go on after this scope
	Name  string // "": all
}

func (m *ScopesAsk) encode(w *writer) {
	w.str(m.After, MaxScopeName, "scope name")
	w.str(m.Name, MaxScopeName, "scope name")
}

func (m *ScopesAsk) decode(r *reader) {
	m.After = r.str(MaxScopeName)
	m.Name = r.str(MaxScopeName)
}

// ScopeEntriesPerPage is how many entries a page has at most. The kinds of one scope
// are not parted.
const ScopeEntriesPerPage = 144

const scopeInfoSize = 16

const _ = uint(MaxMessage - HeaderSize - 10 - ScopeEntriesPerPage*(scopeInfoSize+8+MaxScopeName+MaxScopeKind+MaxScopeLimit+MaxScopeOrigin))

// ScopesReply is a page of scopes.
type ScopesReply struct {
	Entries []ScopeInfo
	More    bool // ask again after the last one
}

func (m *ScopesReply) encode(w *writer) {
	w.block(8)[0] = bit(m.More, 1)
	w.count(len(m.Entries), ScopeEntriesPerPage, "list of scopes")
	for i := range m.Entries {
		e := &m.Entries[i]
		b := w.block(scopeInfoSize)
		le.PutUint64(b[0:], uint64(e.Used))
		le.PutUint64(b[8:], e.Refused)
		w.str(e.Scope, MaxScopeName, "scope name")
		w.str(e.Kind, MaxScopeKind, "kind")
		w.str(e.Limit, MaxScopeLimit, "limit")
		w.cut(e.Origin, MaxScopeOrigin)
	}
}

func (m *ScopesReply) decode(r *reader) {
	b := r.block(8)
	r.bits(b[0], 1)
	r.reserved(b[1:8])
	m.More = b[0] != 0
	for range r.count(ScopeEntriesPerPage, scopeInfoSize+8) {
		var e ScopeInfo
		b := r.block(scopeInfoSize)
		e.Used, e.Refused = int64(le.Uint64(b[0:])), le.Uint64(b[8:])
		e.Scope, e.Kind = r.str(MaxScopeName), r.str(MaxScopeKind)
		e.Limit, e.Origin = r.str(MaxScopeLimit), r.str(MaxScopeOrigin)
		m.Entries = append(m.Entries, e)
	}
}

// MaxScopeLimits is how many limits are set at once.
const MaxScopeLimits = 16

// ScopeLimit is a limit that is to be set.
type ScopeLimit struct {
	Kind  string
	Limit string // a number, a size, a share such as "5%", "unlimited", "block"; "default" takes back what was set
}

// ScopeSet sets limits of a scope, or of all whose names begin so before the colon.
type ScopeSet struct {
	Name   string
	Limits []ScopeLimit
}

func (m *ScopeSet) encode(w *writer) {
	w.str(m.Name, MaxScopeName, "scope name")
	w.count(len(m.Limits), MaxScopeLimits, "list of limits")
	for _, l := range m.Limits {
		w.str(l.Kind, MaxScopeKind, "kind")
		w.str(l.Limit, MaxScopeLimit, "limit")
	}
}

func (m *ScopeSet) decode(r *reader) {
	m.Name = r.str(MaxScopeName)
	for range r.count(MaxScopeLimits, 4) {
		m.Limits = append(m.Limits, ScopeLimit{Kind: r.str(MaxScopeKind), Limit: r.str(MaxScopeLimit)})
	}
}
