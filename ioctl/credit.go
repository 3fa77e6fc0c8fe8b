package ioctl

import (
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
)

// Creditor is the id under which a session knows who lends to it: the daemon,
// for the pool of the handle that goes with each message.
const Creditor credit.OwnerID = 1 << 63

// MaxSpans is how many spans the credit of a message has at most.
const MaxSpans = 1024

// CreditMessage carries what owners of credits say to each other, for the pool of
// a handle: the session's owner to the daemon, and the other way with FlagReply
// and the tag 0. It is never answered, but for an error: the handle is bad, or
// the daemon has no credits. Each handle of a pool is one debtor, from its Hello
// to the handle's end. Nothing is lost or overtaken while the session lives. What
// one side says at one time goes together: see [PackCredits].
//
// From, To and Group of the message do not travel: the one end is [Creditor], the
// other one the handle, and the group is the session. A refusal's Limit does if both
// sides know [FeatureLimit].
type CreditMessage struct {
	Pool    Handle
	Message credit.Message
	More    []credit.Message // that follow it, fewer than MaxCredits; none without FeaturePacked
}

// MaxCredits is how many messages of owners one message has at most.
const MaxCredits = 32

// packedSpans is how many spans a message of an owner has at most that goes together
// with others: then all fit.
const packedSpans = 16

// PackCredits makes a message of the first of the list, which is not empty, and, if both
// sides know [FeaturePacked], of those behind it that fit, and returns what is left.
func PackCredits(pool Handle, list []credit.Message, features uint64) (m CreditMessage, left []credit.Message) {
	n := 0
	for features&FeaturePacked != 0 && n < min(len(list), MaxCredits) && len(list[n].Credit) <= packedSpans && list[n].Limit == nil {
		n++
	}
	n = max(n, 1)
	return CreditMessage{Pool: pool, Message: list[0], More: list[1:n]}, list[n:]
}

// Agreed is an error if there is more in a message than sides say to each other who know
// these features.
func (m *CreditMessage) Agreed(features uint64) error {
	limited := false
	for c := range m.All() {
		limited = limited || c.Limit != nil
	}
	if len(m.More) > 0 && features&FeaturePacked == 0 || limited && features&FeatureLimit == 0 {
		return fmt.Errorf("%w: messages of credits of a form that was not agreed", ErrMalformed)
	}
	return nil
}

// All returns the messages of owners in their order.
func (m *CreditMessage) All() iter.Seq[credit.Message] {
	return func(yield func(credit.Message) bool) {
		if !yield(m.Message) {
			return
		}
		for _, x := range m.More {
			if !yield(x) {
				return
			}
		}
	}
}

// The numbers of kinds and types of resource, which stay as they are. They are
// never written.
var (
	creditKinds = [...]credit.Kind{
		1: credit.Hello, 2: credit.Welcome, 3: credit.Renew, 4: credit.Renewed, 5: credit.Gone, 6: credit.Ack,
		7: credit.Borrow, 8: credit.Withdraw, 9: credit.Grant, 10: credit.Refuse, 11: credit.Recall,
		12: credit.Kept, 13: credit.Return, 14: credit.Taken, 15: credit.Raise, 16: credit.Raised, 17: credit.Bye,
		18: credit.Waive,
	}
	creditCodes = [...]credit.Code{
		1: credit.ErrBusy, 2: credit.ErrRemote, 3: credit.ErrNotFound, 4: credit.ErrTimeout, 5: credit.ErrCanceled,
		6: credit.ErrStale, 7: credit.ErrClosed, 8: credit.ErrNoCreditor, 9: credit.ErrInvalid, 10: credit.ErrLimit,
		11: credit.ErrDenied,
	}
	creditTypes = [...]*credit.Type{1: credit.Access, 2: credit.Space, 3: credit.Activation}
)

const (
	creditSize = 16 + 8*(9+credit.Depth+2+2)
	spanSize   = 24
	limitSize  = 24
	maxLimit   = limitSize + 2 + MaxName + 2 + MaxName + 2 + MaxText

	creditFlags = credit.MayBorrow | credit.MayRevoke | credit.Try
)

const (
	_ = uint(MaxMessage - HeaderSize - creditSize - 2 - MaxSpans*spanSize - maxLimit)
	_ = uint(MaxMessage - HeaderSize - MaxCredits*(creditSize+2+packedSpans*spanSize))
)

func (m *CreditMessage) encode(w *writer) {
	if len(m.More) >= MaxCredits {
		w.fail("list of credit messages", 1+len(m.More), MaxCredits)
		return
	}
	encodeCredit(w, m.Pool, &m.Message, len(m.More))
	for i := range m.More {
		encodeCredit(w, 0, &m.More[i], 0)
	}
}

// encodeCredit appends one message of an owner. The pool, and how many follow, are with
// the first.
func encodeCredit(w *writer, pool Handle, c *credit.Message, more int) {
	b := w.block(creditSize)
	le.PutUint64(b[0:], uint64(pool))
	le.PutUint16(b[14:], uint16(more))
	b[8] = numberOf(w, creditKinds[:], c.Kind, "kind of credit message")
	if c.Resource.Type != nil {
		b[9] = numberOf(w, creditTypes[:], c.Resource.Type, "type of resource")
	}
	b[10] = uint8(c.Flags)
	if c.Code != 0 {
		b[11] = numberOf(w, creditCodes[:], c.Code, "code of a refusal")
	}
	b[12], b[13] = uint8(c.Level), bit(c.Limit != nil, 1)
	for i, v := range [...]uint64{
		c.Session, c.Key, c.Seq, c.Ack, c.Seen, c.Resource.ID, c.Request, c.Amount, c.Least,
		c.Token[0], c.Token[1], c.Token[2], c.Token[3], c.Version[0], c.Version[1], uint64(c.Within), uint64(c.Sent),
	} {
		le.PutUint64(b[16+8*i:], v)
	}
	w.count(len(c.Credit), MaxSpans, "list of spans")
	for _, s := range c.Credit {
		b := w.block(spanSize)
		le.PutUint64(b[0:], s.First)
		le.PutUint64(b[8:], s.End)
		b[16] = uint8(s.Modes)
	}
	if l := c.Limit; l != nil {
		b := w.block(limitSize)
		le.PutUint64(b[0:], uint64(l.Used))
		le.PutUint64(b[8:], uint64(l.Asked))
		le.PutUint64(b[16:], uint64(l.Limit))
		w.cut(l.Kind, MaxName)
		w.cut(l.Name, MaxName)
		w.cut(l.Text, MaxText)
	}
}

// numberOf returns what v is called on the wire.
func numberOf[T comparable](w *writer, names []T, v T, what string) uint8 {
	i := slices.Index(names, v)
	if i < 1 {
		w.fail(what, i, len(names)-1)
		return 0
	}
	return uint8(i)
}

// nameOf is the reverse of numberOf; 0 is none.
func nameOf[T any](r *reader, names []T, i uint8, what string) T {
	if int(i) >= len(names) {
		r.fail("%s %d", what, i)
		i = 0
	}
	return names[i]
}

func (m *CreditMessage) decode(r *reader) {
	pool, more := decodeCredit(r, &m.Message)
	if more >= MaxCredits || more*(creditSize+2) > len(r.b) {
		r.fail("%d more credit messages in %d bytes, at most %d", more, len(r.b), MaxCredits-1)
	}
	m.Pool, m.More = pool, nil
	if more == 0 || r.err != nil {
		return
	}
	m.More = make([]credit.Message, more)
	for i := range m.More {
		if pool, more := decodeCredit(r, &m.More[i]); pool != 0 || more != 0 {
			r.fail("a credit message that follows another has a pool, or is followed")
		}
	}
}

// CreditsIn returns how many messages of owners a message of [OpCredit] says that it has,
// which was not decoded yet.
func CreditsIn(msg []byte) int {
	if len(msg) < HeaderSize+16 {
		return 1
	}
	return 1 + min(int(le.Uint16(msg[HeaderSize+14:])), MaxCredits-1)
}

func decodeCredit(r *reader, c *credit.Message) (pool Handle, more int) {
	b := r.block(creditSize)
	pool, more = Handle(le.Uint64(b[0:])), int(le.Uint16(b[14:]))
	if c.Kind = nameOf(r, creditKinds[:], b[8], "kind of credit message"); c.Kind == 0 {
		r.fail("no kind of credit message")
	}
	c.Resource.Type = nameOf(r, creditTypes[:], b[9], "type of resource")
	r.bits(b[10], uint8(creditFlags))
	c.Flags = credit.Flags(b[10])
	c.Code = nameOf(r, creditCodes[:], b[11], "code of a refusal")
	if b[12] >= credit.Depth {
		r.fail("level %d", b[12])
	}
	c.Level = int(b[12])
	r.bits(b[13], 1)
	limited := b[13] != 0
	if limited && c.Kind != credit.Refuse {
		r.fail("a limit, and no refusal")
	}
	var within, sent uint64
	for i, v := range [...]*uint64{
		&c.Session, &c.Key, &c.Seq, &c.Ack, &c.Seen, &c.Resource.ID, &c.Request, &c.Amount, &c.Least,
		&c.Token[0], &c.Token[1], &c.Token[2], &c.Token[3], &c.Version[0], &c.Version[1], &within, &sent,
	} {
		*v = le.Uint64(b[16+8*i:])
	}
	c.Within, c.Sent = time.Duration(within), time.Duration(sent)
	if c.Within < 0 || c.Resource.Type == nil && c.Resource.ID != 0 {
		r.fail("within %v, resource %d", c.Within, c.Resource.ID)
	}
	c.Credit, c.Limit = decodeSpans(r), nil
	if limited {
		b := r.block(limitSize)
		c.Limit = &credit.Limit{
			Used: int64(le.Uint64(b[0:])), Asked: int64(le.Uint64(b[8:])), Limit: int64(le.Uint64(b[16:])),
			Kind: r.str(MaxName), Name: r.str(MaxName), Text: r.str(MaxText),
		}
	}
	return pool, more
}

func decodeSpans(r *reader) credit.Credit {
	n := r.count(MaxSpans, spanSize)
	if n == 0 {
		return nil
	}
	c := make(credit.Credit, n)
	for i := range c {
		b := r.block(spanSize)
		c[i] = credit.Span{First: le.Uint64(b[0:]), End: le.Uint64(b[8:]), Modes: credit.Modes(b[16])}
		r.reserved(b[17:spanSize])
		if c[i].Modes == 0 || c[i].First >= c[i].End || i > 0 && (c[i].First < c[i-1].End ||
			c[i].First == c[i-1].End && c[i].Modes == c[i-1].Modes) {
			r.fail("span %d, %v, is none or does not follow the one before", i, c[i])
		}
	}
	return c
}

// CreditState says how a credit stands.
type CreditState uint8

// The states.
const (
	CreditGranted    CreditState = 1 // lent to a session, which may have it cached
	CreditHeld       CreditState = 2 // held by a handle, or by an operation under way
	CreditCalledBack CreditState = 3 // either, and somebody waits for it
	CreditWaiting    CreditState = 4 // asked for
)

// creditStateNames is never written.
var creditStateNames = [...]string{
	CreditGranted: "granted", CreditHeld: "held", CreditCalledBack: "called_back", CreditWaiting: "waiting",
}

func (s CreditState) String() string {
	if int(s) < len(creditStateNames) {
		return creditStateNames[s]
	}
	return "unknown"
}

// CreditCursor is a place in the list of credits, which is sorted by it.
type CreditCursor struct {
	Object layout.ObjectID
	Holder uint64 // numbers what one handle of a pool, one handle or one operation has
	First  uint64 // of the span
}

// CreditList asks for the credits on a pool's objects that the asker may see.
type CreditList struct {
	After CreditCursor // go on after this
	Pool  string       // its name
}

func (c *CreditCursor) put(b []byte) {
	le.PutUint64(b[0:], uint64(c.Object))
	le.PutUint64(b[8:], c.Holder)
	le.PutUint64(b[16:], c.First)
}

func (c *CreditCursor) get(b []byte) {
	c.Object = layout.ObjectID(le.Uint64(b[0:]))
	c.Holder, c.First = le.Uint64(b[8:]), le.Uint64(b[16:])
}

func (m *CreditList) encode(w *writer) {
	m.After.put(w.block(24))
	w.str(m.Pool, MaxName, "pool name")
}

func (m *CreditList) decode(r *reader) {
	m.After.get(r.block(24))
	m.Pool = r.str(MaxName)
}

// CreditsPerPage is how many spans a page has at most.
const CreditsPerPage = 512

// CreditInfo is one span of what somebody has, or waits for.
type CreditInfo struct {
	CreditCursor
	End     uint64 // [credit.End]: no end
	Modes   credit.Modes
	State   CreditState
	Session uint64
	PID     int32
	UID     uint32
	Token   credit.Token // zero: waiting
	// Expires is when it is taken that was called back; the zero time: it is not.
	Expires time.Time
}

const creditInfoSize = 24 + 8 + 8 + 8 + 8 + 8*credit.Depth + 8

const _ = uint(MaxMessage - HeaderSize - 10 - CreditsPerPage*creditInfoSize)

// CreditsReply is a page of the list.
type CreditsReply struct {
	Credits []CreditInfo
	More    bool // ask again from the last one
}

func (m *CreditsReply) encode(w *writer) {
	w.block(8)[0] = bit(m.More, 1)
	w.count(len(m.Credits), CreditsPerPage, "list of credits")
	for i := range m.Credits {
		c := &m.Credits[i]
		b := w.block(creditInfoSize)
		c.put(b)
		le.PutUint64(b[24:], c.End)
		le.PutUint64(b[32:], c.Session)
		if !c.Expires.IsZero() {
			le.PutUint64(b[40:], uint64(c.Expires.UnixNano()))
		}
		le.PutUint32(b[48:], uint32(c.PID))
		le.PutUint32(b[52:], c.UID)
		for j, v := range c.Token {
			le.PutUint64(b[56+8*j:], v)
		}
		b[88], b[89] = uint8(c.Modes), uint8(c.State)
	}
}

func (m *CreditsReply) decode(r *reader) {
	b := r.block(8)
	r.bits(b[0], 1)
	r.reserved(b[1:8])
	m.More = b[0] != 0
	for range r.count(CreditsPerPage, creditInfoSize) {
		var c CreditInfo
		b := r.block(creditInfoSize)
		c.get(b)
		c.End, c.Session = le.Uint64(b[24:]), le.Uint64(b[32:])
		if ns := int64(le.Uint64(b[40:])); ns != 0 {
			c.Expires = time.Unix(0, ns).UTC()
		}
		c.PID, c.UID = int32(le.Uint32(b[48:])), le.Uint32(b[52:])
		for j := range c.Token {
			c.Token[j] = le.Uint64(b[56+8*j:])
		}
		c.Modes, c.State = credit.Modes(b[88]), CreditState(b[89])
		r.reserved(b[90:creditInfoSize])
		m.Credits = append(m.Credits, c)
	}
}
