package server

import (
	"context"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// Pool is an active pool as the server needs it.
type Pool interface {
	api.Pool
	// Name returns the pool's name.
	Name() string
	// Access returns who may open the pool: owner, group, permission bits.
	Access() (uid, gid, mode uint32)
	// Rename gives the pool another name.
	Rename(ctx context.Context, newName string) error
	// Set changes the pool's properties.
	Set(ctx context.Context, s api.PoolSettings) error
	// Destroy deactivates the pool and wipes it. EBUSY while handles are in
	// use; when it refuses (EBUSY, EROFS) the pool is still active.
	Destroy(ctx context.Context) error
	// Abandon closes the pool whatever is in use.
	Abandon(ctx context.Context) error
	// DriveCounters returns the drives' counters in a fixed order.
	DriveCounters() []ioctl.DriveCounters
}

// Backend gives the server its pools.
type Backend interface {
	// Create makes a pool; see [api.Manager]. It does not activate it.
	Create(ctx context.Context, name string, devices []string, o api.CreateOptions) (api.CreateResult, error)
	// Activate activates a pool; see [api.Manager].
	Activate(ctx context.Context, nameOrUUID string, devices []string, o api.ActivateOptions) (Pool, error)
}
