package api

import "github.com/mpool-go/mpool/layout"

// ScrubCursor says how far a scrub is. The zero value is its beginning: the
// superblocks and the metadata, which come before the objects. What it says stays
// right across restarts.
type ScrubCursor struct {
	Object layout.ObjectID // the next object; 0: the metadata
	Place  uint64          // in it: of an mblock the next byte, of a log the next record; of the metadata that + 1
}

// MaxScrubStep is the most that a step of a scrub verifies, in bytes, beside one
// mblock's piece of 4 MiB or one log.
const MaxScrubStep = 64 << 20

// MaxScrubProblems is how many problems a step finds at most: then it ends.
const MaxScrubProblems = 24

// ScrubStep is what one step of a scrub did.
type ScrubStep struct {
	Next     ScrubCursor    // where the next step begins
	Done     bool           // there is no next step
	Verified int64          // bytes that were read and are right
	Covered  int64          // bytes of the objects that were passed
	Total    int64          // bytes of all objects now: what Covered adds up to in the end
	Objects  int64          // objects that were passed
	Skipped  int64          // of these, containers that were being written
	Problems []ScrubProblem // what was found
}

// ScrubProblem is something that a scrub found.
type ScrubProblem struct {
	Object layout.ObjectID // 0: a superblock or the metadata
	Device string
	Offset int64 // on the device, in bytes
	Code   Code  // ECORRUPT or EIO
	Text   string
}
