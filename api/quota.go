package api

import (
	"context"
	"time"
)

// QuotaUnlimited is the limit of what is not limited.
const QuotaUnlimited = -1

// QuotaClass is a resource class of a pool's quotas. Limits are from 0 up, or
// QuotaUnlimited. Built in are mpool.bytes.capacity and mpool.bytes.staging (bytes of
// objects' extents), mpool.mblocks and mpool.mlogs: what objects hold of them is what
// the objects are, and they are not claimed.
type QuotaClass struct {
	Name    string
	Bytes   bool  // its numbers are bytes
	Total   int64 // of all owners together
	Default int64 // of an owner that has no limit of its own
	Min     int64 // of one claim, from 1
	Max     int64 // of one claim, or QuotaUnlimited
	Step    int64 // a claim is a multiple of it, from 1
	BuiltIn bool
}

// QuotaLimit is a limit that is set for one owner.
type QuotaLimit struct {
	Owner string // its path, "parent/child"
	Class string
	Limit int64
}

// QuotaUsage is what an owner, with all below it, has of a class. Held and Reserved
// both count.
type QuotaUsage struct {
	Class    string
	Owner    string // "": all together
	Held     int64
	Reserved int64 // of reservations, and of uncommitted objects
	Limit    int64
	Origin   string // of the limit: "owner", "default", "total"
}

// QuotaAmount is so much of a class.
type QuotaAmount struct {
	Class string
	N     int64
}

// QuotaClaim is a record of what an owner holds of classes that are not built in.
type QuotaClaim struct {
	ID      string // 16 hex digits
	Parent  string // the claim that it lies under, or ""
	Owner   string
	State   string    // "reserved", "held"
	Expires time.Time // of a reserved one
	Real    string    // of a held one: the caller's own id
	Amounts []QuotaAmount
}

// QuotaAsk is what is to be reserved: all of it or nothing.
type QuotaAsk struct {
	Owner   string // one never named before comes to be, with default limits
	Amounts []QuotaAmount
	Parent  string        // the claim that it is to lie under, by its id, or ""
	TTL     time.Duration // 0: an hour
	Request string        // an id of the caller's: the same call again does nothing more
}

// Quotas are a pool's quotas; a Pool that comes from a daemon implements it. A ref is
// a claim's id or its real id. Errors: EDQUOT (a limit refuses), ENOENT, EEXIST, EINVAL,
// ESTATE (held already, or expired), EBUSY (the class is in use), ENOSPC (the store is
// full), EPERM, EUNKNOWN (ask again under the same request id).
type Quotas interface {
	// QuotaClasses returns the classes, sorted by name.
	QuotaClasses(ctx context.Context) ([]QuotaClass, error)
	// DefineQuotaClass defines a class, or defines it anew. Claims stay.
	DefineQuotaClass(ctx context.Context, c QuotaClass) error
	// RemoveQuotaClass removes a class of which nothing is claimed.
	RemoveQuotaClass(ctx context.Context, name string) error
	// SetQuotaLimit sets an owner's limit, also one below what it holds.
	SetQuotaLimit(ctx context.Context, l QuotaLimit) error
	// UnsetQuotaLimit has the class's default count again.
	UnsetQuotaLimit(ctx context.Context, owner, class string) error
	// QuotaLimits returns the limits that are set: of one owner, or, with "", of all.
	QuotaLimits(ctx context.Context, owner string) ([]QuotaLimit, error)
	// QuotaUsage returns what one owner has or, with "", what all have, and each.
	QuotaUsage(ctx context.Context, owner string) ([]QuotaUsage, error)
	// AddQuotaOwner adds an owner below another one, or, with "", at the top, and
	// returns its path.
	AddQuotaOwner(ctx context.Context, name, parent string) (string, error)

	// ReserveQuota makes a reservation, which counts from its birth.
	ReserveQuota(ctx context.Context, a QuotaAsk) (QuotaClaim, error)
	// ProvisionQuota makes a reservation held, under an id of the caller's own.
	ProvisionQuota(ctx context.Context, id, realID, request string) (QuotaClaim, error)
	// ResizeQuota gives a claim other amounts. Shrinking is never refused by a limit.
	ResizeQuota(ctx context.Context, ref string, amounts []QuotaAmount, request string) (QuotaClaim, error)
	// ReleaseQuota ends a claim and all below it, and returns it; after the same
	// request, nothing.
	ReleaseQuota(ctx context.Context, ref, request string) (QuotaClaim, error)
	// TransferQuota gives a claim, and what is below it of the same owner, to another.
	TransferQuota(ctx context.Context, ref, owner, request string) (QuotaClaim, error)
	// ExpireQuota ends the reservations whose time is over. They end by themselves, too.
	ExpireQuota(ctx context.Context) ([]QuotaClaim, error)
	// QuotaClaims returns the claims: of one owner, or, with "", of all.
	QuotaClaims(ctx context.Context, owner string) ([]QuotaClaim, error)
}
