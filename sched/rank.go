package sched

// Rank is a mutex's place in the lock tree. A task that holds a mutex may take
// only mutexes of a higher rank.
type Rank uint8

// The lock tree, outermost first.
const (
	RankPool    Rank = iota + 1 // a pool's life cycle: activate, deactivate, resize
	RankDrives                  // a pool's set of drives
	RankSession                 // the daemon's table of sessions
	RankHandle                  // one session's handle table
	RankAdmin                   // roots, owners and properties; held across their metadata commit
	RankMeta                    // the order of metadata transactions
	RankApply                   // transactions that are sent and not yet durable; held while one is applied
	RankObject                  // one object's state: an mblock being written, a log being opened
	RankUses                    // the objects in use and their references
	RankLayout                  // the layout table
	RankMDC                     // a metadata container's switch between its two logs
	RankLog                     // one log's append state
	RankSpace                   // one drive's space map
	RankCache                   // the cache of checksum pages
	RankDrive                   // one drive's flush state; which of its logs are to be written
	RankQueue                   // an I/O queue's submission state
)

func (r Rank) String() string {
	names := [...]string{
		"none", "pool", "drives", "session", "handle", "admin", "meta", "apply", "object",
		"uses", "layout", "mdc", "log", "space", "cache", "drive", "queue",
	}
	if int(r) < len(names) {
		return names[r]
	}
	return "unknown"
}
