// Package rot changes what lies on a pool's drive, a bit at a time, and holds the
// engine to what it says about it: each byte on a drive is under a checksum, has
// a copy, or is nobody's.
//
// A flip is tried on a copy of a pool: it is activated, everything is read, the
// pool is closed, and the offline checker looks at what is left. What comes of
// it, by the class of what was hit:
//
//	superblock copies      corrected: activation writes them anew from another
//	tail slots             without effect: each tail is there twice
//	pages of logs          detected: the log, or the pool, is ECORRUPT with the place
//	data, checksum pages   detected: the object is ECORRUPT, the others are whole
//	free space, leftovers  without effect
//
// The one exception is that of an unclean stop: when what the last group of a log
// wrote rots, or the data of a commit in the metadata's last group, and nothing
// later says that it was durable, the log ends before it, as if the group had
// been cut off. It is counted, and must not happen after a clean one.
//
// Pools are of one drive, of one of either class, and of two capacity drives, of which
// objects lie on both.
//
// Writes that a drive acknowledges and loses, does elsewhere or does with a bit
// flipped are tried at each write of a scenario.
//
//	go test ./test/rot                                    # some hundreds of flips
//	go test ./test/rot -timeout 1h -rot.flips=1000000 -rot.seed=7
//	go test ./test/rot -timeout 1h -rot.flips=100000 -rot.drives=2
package rot
