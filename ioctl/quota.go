package ioctl

import (
	"time"

	"github.com/mpool-go/mpool/api"
)

// Bounds of what quotas' messages carry.
const (
	MaxQuotaText    = 255 // bytes of a class's or owner's name, of an id
	MaxQuotaAmounts = 64  // classes of one claim
	// QuotaPageBytes is how many bytes of entries a page has; with one entry more.
	QuotaPageBytes = 32 << 10
	maxQuotaPage   = 2048 // entries of one list
)

// QuotaWhat says what to show of quotas.
type QuotaWhat uint8

// What there is to show.
const (
	QuotaShowClasses QuotaWhat = 1
	QuotaShowLimits  QuotaWhat = 2
	QuotaShowUsage   QuotaWhat = 3
	QuotaShowClaims  QuotaWhat = 4
)

// QuotaShow asks for a page of classes, limits, usage or claims.
type QuotaShow struct {
	Pool  Handle
	What  QuotaWhat
	From  uint32 // entries to leave out
	Owner string // or "", for all
}

func (m *QuotaShow) encode(w *writer) {
	b := w.block(16)
	le.PutUint64(b[0:], uint64(m.Pool))
	le.PutUint32(b[8:], m.From)
	b[12] = byte(m.What)
	w.str(m.Owner, MaxQuotaText, "owner")
}

func (m *QuotaShow) decode(r *reader) {
	b := r.block(16)
	m.Pool = Handle(le.Uint64(b[0:]))
	m.From = le.Uint32(b[8:])
	m.What = QuotaWhat(b[12])
	r.reserved(b[13:16])
	m.Owner = r.str(MaxQuotaText)
}

// QuotaPage is a page of what was asked for.
type QuotaPage struct {
	More    bool // ask again from behind these
	Classes []api.QuotaClass
	Limits  []api.QuotaLimit
	Usage   []api.QuotaUsage
	Claims  []api.QuotaClaim
}

func (m *QuotaPage) encode(w *writer) {
	w.block(8)[0] = bit(m.More, 1)
	w.count(len(m.Classes), maxQuotaPage, "classes")
	for i := range m.Classes {
		w.quotaClass(&m.Classes[i])
	}
	w.count(len(m.Limits), maxQuotaPage, "limits")
	for i := range m.Limits {
		w.quotaLimit(&m.Limits[i])
	}
	w.count(len(m.Usage), maxQuotaPage, "usage")
	for _, u := range m.Usage {
		b := w.block(24)
		le.PutUint64(b[0:], uint64(u.Held))
		le.PutUint64(b[8:], uint64(u.Reserved))
		le.PutUint64(b[16:], uint64(u.Limit))
		w.str(u.Owner, MaxQuotaText, "owner")
		w.str(u.Class, MaxQuotaText, "class")
		w.str(u.Origin, MaxQuotaText, "origin")
	}
	w.count(len(m.Claims), maxQuotaPage, "claims")
	for i := range m.Claims {
		w.quotaClaim(&m.Claims[i])
	}
}

func (m *QuotaPage) decode(r *reader) {
	b := r.block(8)
	r.bits(b[0], 1)
	r.reserved(b[1:8])
	m.More = b[0] != 0
	for range r.count(maxQuotaPage, 50) {
		m.Classes = append(m.Classes, r.quotaClass())
	}
	for range r.count(maxQuotaPage, 12) {
		m.Limits = append(m.Limits, r.quotaLimit())
	}
	for range r.count(maxQuotaPage, 30) {
		b := r.block(24)
		m.Usage = append(m.Usage, api.QuotaUsage{
			Held: int64(le.Uint64(b[0:])), Reserved: int64(le.Uint64(b[8:])), Limit: int64(le.Uint64(b[16:])),
			Owner: r.str(MaxQuotaText), Class: r.str(MaxQuotaText), Origin: r.str(MaxQuotaText),
		})
	}
	for range r.count(maxQuotaPage, 20) {
		m.Claims = append(m.Claims, r.quotaClaim())
	}
}

func (w *writer) quotaClass(c *api.QuotaClass) {
	b := w.block(48)
	for i, v := range []int64{c.Total, c.Default, c.Min, c.Max, c.Step} {
		le.PutUint64(b[8*i:], uint64(v))
	}
	b[40] = bit(c.Bytes, 1) | bit(c.BuiltIn, 2)
	w.str(c.Name, MaxQuotaText, "class")
}

func (r *reader) quotaClass() (c api.QuotaClass) {
	b := r.block(48)
	for i, v := range []*int64{&c.Total, &c.Default, &c.Min, &c.Max, &c.Step} {
		*v = int64(le.Uint64(b[8*i:]))
	}
	r.bits(b[40], 3)
	r.reserved(b[41:48])
	c.Bytes, c.BuiltIn = b[40]&1 != 0, b[40]&2 != 0
	c.Name = r.str(MaxQuotaText)
	return c
}

func (w *writer) quotaLimit(l *api.QuotaLimit) {
	le.PutUint64(w.block(8), uint64(l.Limit))
	w.str(l.Owner, MaxQuotaText, "owner")
	w.str(l.Class, MaxQuotaText, "class")
}

func (r *reader) quotaLimit() api.QuotaLimit {
	l := api.QuotaLimit{Limit: int64(le.Uint64(r.block(8)))}
	l.Owner, l.Class = r.str(MaxQuotaText), r.str(MaxQuotaText)
	return l
}

func (w *writer) quotaClaim(c *api.QuotaClaim) {
	ms := int64(0)
	if !c.Expires.IsZero() {
		ms = c.Expires.UnixMilli()
	}
	le.PutUint64(w.block(8), uint64(ms))
	for _, s := range []string{c.ID, c.Parent, c.Owner, c.State, c.Real} {
		w.str(s, MaxQuotaText, "text")
	}
	w.quotaAmounts(c.Amounts)
}

func (r *reader) quotaClaim() (c api.QuotaClaim) {
	if ms := int64(le.Uint64(r.block(8))); ms != 0 {
		c.Expires = time.UnixMilli(ms).UTC()
	}
	for _, s := range []*string{&c.ID, &c.Parent, &c.Owner, &c.State, &c.Real} {
		*s = r.str(MaxQuotaText)
	}
	c.Amounts = r.quotaAmounts()
	return c
}

func (w *writer) quotaAmounts(list []api.QuotaAmount) {
	w.count(len(list), MaxQuotaAmounts, "classes of a claim")
	for _, a := range list {
		le.PutUint64(w.block(8), uint64(a.N))
		w.str(a.Class, MaxQuotaText, "class")
	}
}

func (r *reader) quotaAmounts() (list []api.QuotaAmount) {
	for range r.count(MaxQuotaAmounts, 10) {
		a := api.QuotaAmount{N: int64(le.Uint64(r.block(8)))}
		a.Class = r.str(MaxQuotaText)
		list = append(list, a)
	}
	return list
}

// QuotaSetVerb says what a QuotaSet does.
type QuotaSetVerb uint8

// The verbs of QuotaSet.
const (
	QuotaDefine      QuotaSetVerb = 1
	QuotaRemoveClass QuotaSetVerb = 2 // Class.Name
	QuotaSetLimit    QuotaSetVerb = 3
	QuotaUnsetLimit  QuotaSetVerb = 4
	QuotaAddOwner    QuotaSetVerb = 5 // Limit.Owner, below Limit.Class
)

// QuotaSet changes classes, limits and owners.
type QuotaSet struct {
	Pool  Handle
	Verb  QuotaSetVerb
	Class api.QuotaClass
	Limit api.QuotaLimit
}

func (m *QuotaSet) encode(w *writer) {
	b := w.block(16)
	le.PutUint64(b[0:], uint64(m.Pool))
	b[8] = byte(m.Verb)
	w.quotaClass(&m.Class)
	w.quotaLimit(&m.Limit)
}

func (m *QuotaSet) decode(r *reader) {
	b := r.block(16)
	m.Pool = Handle(le.Uint64(b[0:]))
	m.Verb = QuotaSetVerb(b[8])
	r.reserved(b[9:16])
	m.Class = r.quotaClass()
	m.Limit = r.quotaLimit()
}

// QuotaClaimVerb says what a QuotaClaim does.
type QuotaClaimVerb uint8

// The verbs of QuotaClaim.
const (
	QuotaReserve   QuotaClaimVerb = 1 // Ref is the claim above, or ""
	QuotaProvision QuotaClaimVerb = 2
	QuotaResize    QuotaClaimVerb = 3
	QuotaRelease   QuotaClaimVerb = 4
	QuotaTransfer  QuotaClaimVerb = 5
	QuotaExpire    QuotaClaimVerb = 6
)

// QuotaClaim makes, changes and ends claims; its reply has those it was about, as
// many as there is room for, the one that was named first.
type QuotaClaim struct {
	Pool    Handle
	Verb    QuotaClaimVerb
	TTL     time.Duration
	Ref     string
	Owner   string
	Real    string
	Request string
	Amounts []api.QuotaAmount
}

func (m *QuotaClaim) encode(w *writer) {
	b := w.block(24)
	le.PutUint64(b[0:], uint64(m.Pool))
	le.PutUint64(b[8:], uint64(m.TTL))
	b[16] = byte(m.Verb)
	for _, s := range []string{m.Ref, m.Owner, m.Real, m.Request} {
		w.str(s, MaxQuotaText, "text")
	}
	w.quotaAmounts(m.Amounts)
}

func (m *QuotaClaim) decode(r *reader) {
	b := r.block(24)
	m.Pool = Handle(le.Uint64(b[0:]))
	m.TTL = time.Duration(le.Uint64(b[8:]))
	m.Verb = QuotaClaimVerb(b[16])
	r.reserved(b[17:24])
	for _, s := range []*string{&m.Ref, &m.Owner, &m.Real, &m.Request} {
		*s = r.str(MaxQuotaText)
	}
	m.Amounts = r.quotaAmounts()
}

// Size returns how many bytes an entry takes of a page.
func quotaSize(texts ...string) int {
	n := 0
	for _, s := range texts {
		n += 2 + len(s)
	}
	return n
}

// Fits says whether the page has room for another entry.
func (m *QuotaPage) Fits() bool {
	n := 0
	for _, c := range m.Classes {
		n += 48 + quotaSize(c.Name)
	}
	for _, l := range m.Limits {
		n += 8 + quotaSize(l.Owner, l.Class)
	}
	for _, u := range m.Usage {
		n += 24 + quotaSize(u.Owner, u.Class, u.Origin)
	}
	for _, c := range m.Claims {
		n += 10 + quotaSize(c.ID, c.Parent, c.Owner, c.State, c.Real)
		for _, a := range c.Amounts {
			n += 8 + quotaSize(a.Class)
		}
	}
	entries := len(m.Classes) + len(m.Limits) + len(m.Usage) + len(m.Claims)
	return n < QuotaPageBytes && entries < 256
}
