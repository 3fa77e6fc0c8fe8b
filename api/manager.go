package api

import "context"

// CreateOptions are the options of creating a pool. Zero values are defaults.
type CreateOptions struct {
	ZoneSize   int64    // bytes, a power of two from 64 KiB to 64 MiB; 0: 64 KiB up to 64 GiB, else 1 MiB
	Staging    []string // devices of the staging class
	UID, GID   uint32
	Mode       uint32 // permission bits; 0: 0660
	Label      string
	Force      bool // take devices that carry a signature
	DryRun     bool // only say what it would cost
	NoActivate bool
}

// CreateResult says what a created pool has.
type CreateResult struct {
	Name          string
	UUID          string
	ZoneSize      int64
	OverheadBytes int64
	UsableBytes   int64
	Drives        []DriveInfo
}

// ActivateOptions are the options of activating a pool.
type ActivateOptions struct {
	Force  bool // without drives that are missing, then read-only; with drives that are old copies
	Resize bool // use a device that has grown
}

// PoolSettings are changes of a pool's properties; nil fields stay.
type PoolSettings struct {
	UID, GID     *uint32
	Mode         *uint32
	Label        *string
	ReadVerify   *bool
	SparePercent *uint8 // 0..50
	Shared       *bool  // an object is for everybody who may open the pool
}

// Manager manages the pools of one host. The daemon is one; package client
// gives another through the daemon's socket.
type Manager interface {
	// CreatePool makes a pool on blank devices and, unless told not to,
	// activates it. Errors: EEXIST (an active pool has the name), EBUSY (a
	// device is mounted or in use), ESTATE (a device carries a signature, which
	// the error names), EINVAL, ENOSPC (too small).
	CreatePool(ctx context.Context, name string, devices []string, o CreateOptions) (CreateResult, error)
	// ActivatePool activates a pool by name or UUID, from the devices given or
	// from all block devices of the host. Errors: ENOENT, EBUSY, ECORRUPT,
	// ENOTSUP (a newer format), ESTATE (a drive is missing, twice there, an
	// old copy, or has shrunk).
	ActivatePool(ctx context.Context, nameOrUUID string, devices []string, o ActivateOptions) (PoolInfo, error)
	// DeactivatePool closes a pool cleanly. EBUSY while handles are in use.
	DeactivatePool(ctx context.Context, name string) error
	// DestroyPool deactivates a pool and wipes its superblocks.
	DestroyPool(ctx context.Context, name string) error
	// RenamePool renames an active pool.
	RenamePool(ctx context.Context, name, newName string) error
	// SetPool changes a pool's properties.
	SetPool(ctx context.Context, name string, s PoolSettings) error
	// Pools returns the active pools, sorted by name.
	Pools(ctx context.Context) ([]PoolInfo, error)
}
