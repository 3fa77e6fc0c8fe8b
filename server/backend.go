package server

import (
	"context"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
)

// Pool is an active pool as the server needs it.
type Pool interface {
	api.Pool
	// Name returns the pool's name.
	Name() string
	// Access returns who may open the pool: owner, group, permission bits.
	Access() (uid, gid, mode uint32)
	// Shared says whether an object is for everybody who may open the pool.
	Shared() bool
	// Rename gives the pool another name.
	Rename(ctx context.Context, newName string) error
	// Set changes the pool's properties.
	Set(ctx context.Context, s api.PoolSettings) error
	// Scrub does one step of a scrub.
	Scrub(ctx context.Context, from api.ScrubCursor, bytes int64) (api.ScrubStep, error)
	// Destroy deactivates the pool and wipes it. EBUSY while handles are in
	// use; when it refuses (EBUSY, EROFS) the pool is still active.
	Destroy(ctx context.Context) error
	// Abandon closes the pool whatever is in use.
	Abandon(ctx context.Context) error
	// Describe describes an object of any state without taking a reference on
	// it. ENOENT if there is none.
	Describe(ctx context.Context, id layout.ObjectID) (api.ObjectInfo, error)
	// MayHandOver says why an object of the pool cannot become another process's
	// now: EBADF, ENOENT, ESTATE (it is committed), EBUSY (it has other references,
	// or I/O is under way). It neither waits nor calls back: it is asked under
	// locks.
	MayHandOver(obj api.Object) error
	// DriveCounters returns the drives' counters in a fixed order.
	DriveCounters() []ioctl.DriveCounters
}

// Watch is what a pool asks and tells the daemon. Its functions may be called
// from anywhere, also while the pool is being activated.
type Watch struct {
	// Event is told of events; it does not block.
	Event func(mpool.Event)
	// Admit is asked before each background step; see [mpool.Options].
	Admit func(ctx context.Context, p mpool.Priority) (done func(), err error)
}

// Backend gives the server its pools.
type Backend interface {
	// Create makes a pool; see [api.Manager]. It does not activate it.
	Create(ctx context.Context, name string, devices []string, o api.CreateOptions) (api.CreateResult, error)
	// Activate activates a pool; see [api.Manager].
	// The pool asks and tells w from then on.
	Activate(ctx context.Context, nameOrUUID string, devices []string, o api.ActivateOptions, w Watch) (Pool, error)
}
