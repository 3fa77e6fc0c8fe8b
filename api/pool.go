package api

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/mpool-go/mpool/layout"
)

// Limits of version 1.
const (
	MaxMblockCapacity = 1 << 30  // bytes
	MaxRecord         = 16 << 20 // bytes of one mlog record
	MaxCommitMany     = 1024     // objects in one CommitMany
	MaxRoots          = 1024     // named roots of a pool
	MaxRootName       = 64       // bytes of a root's name
	MaxPoolName       = 63       // bytes of a pool's name
	MaxLabel          = 63       // bytes of a pool's label
	MaxOwnerName      = 63       // bytes of an owner's name, which has no '/'
	MaxOwnerPath      = 255      // bytes of an owner's path, parent/child
	MaxOwnerDepth     = 62       // owners above one another
)

// Class is a media class.
type Class uint8

// The media classes. The numbers are part of the media format and the protocol.
const (
	ClassCapacity Class = 0 // required; holds the metadata
	ClassStaging  Class = 1 // optional, fast
)

func (c Class) String() string {
	switch c {
	case ClassCapacity:
		return "capacity"
	case ClassStaging:
		return "staging"
	default:
		return "unknown"
	}
}

// AllocOptions are the options of an allocation. The zero value of a field is
// what its comment says.
type AllocOptions struct {
	Class    Class  // default capacity
	Fallback bool   // when the class is full or absent, take another
	Capacity int64  // bytes; mblock 0..MaxMblockCapacity, mlog > 0
	Owner    uint32 // index into the owner table; 0: the caller's own, by default the pool's
	Tag      uint64 // the application's own
	UseSpare bool   // may take the spare share; administrators only
}

// State is an object's state.
type State uint8

// The states. The numbers are part of the protocol.
const (
	StateUncommitted State = 1
	StateCommitted   State = 2
	StateDeleting    State = 3
)

func (s State) String() string {
	switch s {
	case StateUncommitted:
		return "uncommitted"
	case StateCommitted:
		return "committed"
	case StateDeleting:
		return "deleting"
	default:
		return "unknown"
	}
}

// ObjectInfo is what is known of an object.
type ObjectInfo struct {
	ID         layout.ObjectID
	Kind       layout.Kind
	State      State
	Class      Class
	Length     int64 // mblock: bytes written; mlog: bytes of synced records, when it is open, else 0
	Capacity   int64 // bytes asked for at allocation
	Used       int64 // bytes of the drive it occupies
	Owner      uint32
	Tag        uint64
	Refs       uint32
	Created    time.Time
	Generation uint64          // mlog
	Records    uint64          // mlog: synced records, when it is open, else 0
	Partner    layout.ObjectID // the other log of an MDC, or 0
}

// Filter chooses objects. A nil field chooses all.
type Filter struct {
	Kind  layout.Kind // 0: any
	Owner *uint32
	Tag   *uint64
	State State // 0: committed ones, and the caller's own uncommitted ones
}

// DriveInfo is what is known of a drive.
type DriveInfo struct {
	Path       string
	UUID       string
	Slot       uint16
	Class      Class
	State      string // "online", "missing", "failed"
	Size       int64  // bytes
	Free       int64  // bytes
	Engine     string // what does its I/O: "io_uring", "pread", "sim"
	SectorSize int
}

// PoolInfo is what is known of a pool. The byte counts of Space add up to the
// drives' sizes.
type PoolInfo struct {
	Name     string
	UUID     string
	Label    string
	State    string // "active", "read-only"
	Health   string // "optimal", "degraded", "faulted"
	ZoneSize int64
	Space    Space
	Stored   int64 // bytes of data that users wrote and committed
	Mblocks  int64
	Mlogs    int64
	Drives   []DriveInfo
	UID, GID uint32
	Mode     uint32
	Spare    uint8 // percent
	Epoch    uint64
	Verify   bool // reads verify checksums
	Shared   bool // an object is for everybody who may open the pool
}

// Space accounts for every byte of a pool's drives:
// Free + Live + Uncommitted + Draining + Spare + Overhead + Remainder = Total.
type Space struct {
	Total       int64
	Free        int64 // to be had by an ordinary allocation
	Live        int64 // zones of committed objects
	Uncommitted int64 // zones of uncommitted objects
	Draining    int64 // freed, waiting for I/O pins or for discard
	Spare       int64 // free, but kept back from ordinary allocations
	Overhead    int64 // superblocks and metadata logs
	Remainder   int64 // the end of each drive that is no whole zone
}

// Root is a named root.
type Root struct {
	Name string
	ID   layout.ObjectID
}

// Owner is an entry of a pool's owner table.
type Owner struct {
	Index  uint32 // 0 is the pool's own and always there
	Parent uint32
	Name   string
}

// Pool is an active pool.
type Pool interface {
	// Info returns a snapshot of the pool.
	Info(ctx context.Context) (PoolInfo, error)

	// AllocMblock allocates an uncommitted mblock. It writes nothing.
	// Errors: EINVAL, ENOSPC, ENOENT (class), EROFS.
	AllocMblock(ctx context.Context, o AllocOptions) (Mblock, error)
	// PutMblock allocates an mblock, writes data and commits it: the three calls
	// in one, and through a daemon, for data that is not long, in one request.
	// o.Capacity 0 stands for as many bytes as data has. After an error there is
	// no mblock, unless it is EUNKNOWN: then there may be one, by its owner and
	// tag to be found. Errors: as of the three calls.
	PutMblock(ctx context.Context, o AllocOptions, data []byte) (Mblock, error)
	// ReallocMblock is AllocMblock under a given id, for restores by
	// administrators. EEXIST if the id lives.
	ReallocMblock(ctx context.Context, id layout.ObjectID, o AllocOptions) (Mblock, error)
	// Mblock returns a handle on a committed mblock, or on an uncommitted one
	// of the caller's own process. Errors: EINVAL (not an mblock's id), ENOENT.
	Mblock(ctx context.Context, id layout.ObjectID) (Mblock, error)

	// AllocMlog allocates an uncommitted mlog.
	AllocMlog(ctx context.Context, o AllocOptions) (Mlog, error)
	// Mlog returns a handle on a committed mlog. Errors: EINVAL, ENOENT.
	Mlog(ctx context.Context, id layout.ObjectID) (Mlog, error)

	// CreateMDC allocates and commits a metadata container of two logs of the
	// given capacity each. It is named by its first log's id.
	CreateMDC(ctx context.Context, o AllocOptions) (layout.ObjectID, error)
	// OpenMDC opens a metadata container for append and read. EBUSY if it is
	// open for append already.
	OpenMDC(ctx context.Context, id layout.ObjectID) (MDC, error)
	// DeleteMDC deletes both logs in one transaction. EBUSY while it is open.
	DeleteMDC(ctx context.Context, id layout.ObjectID) error

	// Accept takes over the uncommitted object that another process granted (see
	// Object.Grant), with all that was written, and returns the one handle on it:
	// an Mblock or an Mlog. From then on it is the caller's as if it had allocated
	// it. Of several that accept at the same time exactly one gets it. Errors:
	// ENOENT (the token was never given, is used up, expired, revoked, of another
	// pool, or the object is not for the caller; which of these is not told), EBUSY
	// (the giver is using the object now, or I/O on it is under way: nothing is
	// changed, try again), EPERM (the pool is open for read only), EUNKNOWN (the
	// answer is lost: if it was taken, the object is among the caller's own
	// uncommitted ones, or gone with the caller's connection). In process: ENOTSUP.
	Accept(ctx context.Context, t Token) (Object, error)

	// CommitMany commits up to MaxCommitMany of the caller's uncommitted
	// objects in one transaction, all or nothing, together with changes of
	// roots (ID 0 unsets). After an error nothing is committed.
	CommitMany(ctx context.Context, objects []Object, roots []Root) error
	// SetRoots sets (ID 0: unsets) roots in one transaction. The object must
	// be committed: ENOENT. A name is 1..MaxRootName bytes of printable
	// UTF-8; one that begins with '.' is the system's: EPERM. A root holds no
	// reference: deleting its object leaves it dangling.
	SetRoots(ctx context.Context, roots []Root) error
	// Roots returns the roots sorted by name.
	Roots(ctx context.Context) ([]Root, error)

	// Objects iterates over objects, in no order, each as it is when it is
	// visited; objects that come or go meanwhile may be missed or not.
	Objects(ctx context.Context, f Filter) iter.Seq2[ObjectInfo, error]

	// AddOwner makes an owner below another one, or, with 0, at the top. A name is
	// 1..MaxOwnerName bytes of printable UTF-8 without '/', a path MaxOwnerPath bytes
	// and MaxOwnerDepth names at most. EEXIST if a sibling has the name.
	AddOwner(ctx context.Context, name string, parent uint32) (uint32, error)
	// Owners returns the owner table, sorted by index.
	Owners(ctx context.Context) ([]Owner, error)

	// Close gives up the handle on the pool. In process it deactivates the
	// pool: EBUSY while handles are in use.
	Close() error
}

// Object is what mblocks and mlogs have in common.
type Object interface {
	ID() layout.ObjectID
	// Info returns the object's description.
	Info(ctx context.Context) (ObjectInfo, error)
	// Get returns another handle with a reference of its own.
	Get(ctx context.Context) (Object, error)
	// Put gives the reference back and ends the handle. An uncommitted object
	// stays until it is aborted or its process ends.
	Put() error
	// Commit makes the object durable and, for an mblock, immutable. When it
	// returns nil the object survives any crash. Committing a committed object
	// of one's own succeeds. Errors: EIO (poisoned: only Abort is left),
	// ENOSPC (metadata full), EUNKNOWN.
	Commit(ctx context.Context) error
	// Abort discards an uncommitted object and ends the handle. ESTATE if it
	// is committed, EBUSY if there are other references.
	Abort(ctx context.Context) error
	// Delete deletes a committed object and ends the handle. ESTATE if it is
	// uncommitted; EBUSY, with holders, if there are other references.
	Delete(ctx context.Context) error
	// Grant offers an uncommitted object to another process, which takes it over by
	// showing the token to Pool.Accept within ttl (MinGrant to MaxGrant). Until then
	// it is the caller's, to use, to commit and to abort. At Accept this handle ends,
	// and any use of it is EBADF, also Put. What is written between Grant and Accept
	// goes along.
	//
	// The token is good once. It ends with its time, with the object's commit or
	// abort, with this handle, with the caller's process or connection, by Revoke,
	// and by another Grant of the object, which gives a new one.
	//
	// Errors: EINVAL (ttl), ESTATE (the object is committed), EBUSY (there are other
	// handles on the object, or I/O on it is under way), EAGAIN (as many objects are
	// granted as may be), EPERM (the pool is open for read only). In process:
	// ENOTSUP, for there is no other process; give it the handle.
	Grant(ctx context.Context, ttl time.Duration) (Token, error)
	// Revoke ends the object's grant, if there is one: after nil no token of the
	// object's is good, and none was accepted. EBADF if one was. In process:
	// ENOTSUP.
	Revoke(ctx context.Context) error
}

// Mblock is a handle on a write-once extent.
type Mblock interface {
	Object
	// Write appends p to an uncommitted mblock, after all writes submitted
	// before it. Every write but the last must be a multiple of 4096 bytes.
	// Errors: ESTATE (committed, or after a write that was no multiple), EFBIG
	// (past capacity; refused whole), EIO (then only Abort is left).
	Write(ctx context.Context, p []byte) (int, error)
	// ReadAtContext reads at a byte offset: io.ReaderAt with a context. Reads
	// that are aligned (offset, length and memory) to 4096 bytes go straight
	// to the caller's memory. Errors: io.EOF, ECORRUPT, EIO.
	ReadAtContext(ctx context.Context, p []byte, off int64) (int, error)
	io.ReaderAt
	io.WriterTo
}

// Mlog is a handle on an append-only log of records.
type Mlog interface {
	Object
	// OpenAppend opens the log for append. There is one such open at a time:
	// EBUSY. Any number of goroutines may append through it.
	OpenAppend(ctx context.Context) (Appender, error)
	// OpenRead returns a reader placed at the first record. It sees what is synced
	// and, while its own process has the log open for append, all.
	OpenRead(ctx context.Context) (LogReader, error)
	// Erase drops all records in one transaction and raises the generation to
	// at least minGeneration, or by one. EBUSY while it is open.
	Erase(ctx context.Context, minGeneration uint64) error
}

// Appender appends to a log.
type Appender interface {
	// Append appends a record of 0 to MaxRecord bytes and returns its number
	// within the log's generation, from 0. With sync it returns when the record
	// is durable. Errors: EFBIG (full; nothing taken), EINVAL (too long), EIO
	// (the log is poisoned), EUNKNOWN (appended; durability unknown).
	Append(ctx context.Context, record []byte, sync bool) (uint64, error)
	// Sync returns when every record appended before it is durable.
	Sync(ctx context.Context) error
	// Len returns the records and their bytes appended so far.
	Len() (records uint64, bytes int64)
	// Close syncs and closes. The error is that of the sync; it is closed
	// whatever happens.
	Close(ctx context.Context) error
}

// LogReader reads a log's records in order. Not safe for concurrent use.
type LogReader interface {
	// Next reads the next record into p and returns its length. io.EOF at the
	// end (later records are found by calling again); EOVERFLOW with the size
	// in Error.Want if p is too small, the cursor unmoved; ECORRUPT; ESTALE
	// when the log was erased or superseded: rewind.
	Next(ctx context.Context, p []byte) (int, error)
	// Record returns the number of the record that Next will read.
	Record() uint64
	// Seek places the reader before a record. ENOENT past the end.
	Seek(ctx context.Context, record uint64) error
	// Rewind places it at the first record.
	Rewind()
	// Close ends the reader.
	Close() error
}

// MDC is an open metadata container: two logs used in turn.
type MDC interface {
	// Append appends a record; see Appender.
	Append(ctx context.Context, record []byte, sync bool) error
	Sync(ctx context.Context) error
	// OpenRead returns a reader of the active log's records. After a
	// compaction it gets ESTALE and must Rewind.
	OpenRead(ctx context.Context) (LogReader, error)
	// CompactStart begins a compaction: CompactAppend writes the live state to
	// the other log, Append goes on meanwhile to both, CompactEnd makes the
	// new content current, atomically. ESTATE if one is under way.
	CompactStart(ctx context.Context) error
	CompactAppend(ctx context.Context, record []byte) error
	CompactEnd(ctx context.Context) error
	// CompactAbort gives a compaction up; the old content stays.
	CompactAbort(ctx context.Context) error
	// Usage returns bytes used and the capacity of the active log.
	Usage() (used, capacity int64)
	Close(ctx context.Context) error
}
