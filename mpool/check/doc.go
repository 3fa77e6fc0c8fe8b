// Package check reads a pool offline and finds what is wrong with it. It shares
// with the engine what bytes mean (package omf, the pages of package mlog, the
// checksums of package mblock) and nothing of how the engine recovers: which
// superblock counts, which metadata log is active, where a log ends and what
// must be true of all that is worked out here anew, so that a mistake of
// recovery shows as a disagreement.
//
// [Run] gives a [Report]: problems, each with a stable code and a place, and
// notes, which are no problems: what a crash may leave and the next activation
// mends, and what is worth knowing. [Repair] also mends what has redundancy.
// [Scan] says which pools devices carry, [Find] which devices carry a pool;
// [Dump] gives what is on the drives.
//
//	devices, err := check.HostDevices()
//	drives, _, err := check.Find(ctx, "data", devices, check.Options{})
//	r, err := check.Run(ctx, drives, check.Options{Data: true})
//	for _, p := range r.Problems {
//		fmt.Println(p)
//	}
//
// # Codes
//
// Devices and superblocks:
//
//	device-missing        a drive of the pool is not among the devices
//	device-foreign        a device belongs to another pool, or its drive left the pool
//	device-twice          two devices carry the same drive
//	device-small          a device is smaller than recorded
//	device-grown          (note) a device is larger than what is in use
//	superblock-none       a device has no valid superblock
//	superblock-missing    a copy is not there at all
//	superblock-damaged    a copy does not match its checksum, has values that make
//	                      no sense, or cannot be read
//	superblock-version    a copy is of a version or has features unknown here
//	superblock-older      a copy is older than the newest
//	superblock-foreign    a copy is of another pool
//	superblock-misplaced  a copy says that it belongs elsewhere
//	superblock-differs    a copy of the newest generation is not like the others
//	superblock-features   (note) features that this version can only read
//	pool-destroyed        (note) the pool was destroyed, the wiping did not end
//	geometry              the metadata's place makes no sense
//	metadata-missing      the metadata drive is not there
//
// A missing, damaged or older copy is a note where a crash while superblocks are
// written explains it: the copies are written one after the other, those of the
// metadata drive before those of the others. So any drive but the metadata drive
// may be behind, by any number of generations and epochs.
//
// Logs, the metadata's (without object) and mlogs:
//
//	log-no-tail           no tail of the log's generation is left
//	log-broken            a page that was durable is broken: another page says that
//	                      it was, or no end is left before it
//	log-epoch             a page was written by an activation that the superblock
//	                      does not know of
//	log-ahead             a page tells of records of a generation that the metadata
//	                      does not know of
//	log-copy              (note) one of the two copies of the last page is lost
//	log-former            (note) something is wrong with the log of a container that
//	                      a compaction has replaced
//	container-record      a record is none of a container, or a mark is misplaced
//	container-none        neither log of a container has an end mark
//	container-twice       both have, in the same generation
//	container-handover    the log that was replaced has not the records that it had
//	                      when the compaction ended
//
// Metadata records:
//
//	record-malformed      a record breaks the format
//	create-exists         creates an object that lives
//	delete-absent         deletes or unsets what is not there
//	change-absent         changes an object that is not there
//	erase-back            erases without raising the generation
//	counter-back          the counters go back
//	counter-above         an id or birth stamp is not below the counters
//	owner-order           an owner comes out of order or before its parent
//	property-value        a property has a value that it cannot have
//	metadata-room         the metadata log cannot take the deletes of all objects
//	compaction-differs    a compaction changed what it was to copy
//	commit-cut            (note) a commit was cut off: its record is there, its
//	                      data is not, and nothing says that it was durable
//
// Objects:
//
//	extent-drive          lies on a drive that the pool does not have
//	extent-outside        lies outside the zones for objects
//	extent-zones          is no run of whole zones
//	extent-size           is too small for the object
//	extent-overlap        overlaps another object's
//	object-fields         lengths or other values make no sense
//	owner-unknown         the owner table does not have the object's owner
//	partner-link          the logs of a container do not name each other
//	birth-twice           a birth stamp was given twice
//	root-dangling         (note) a root names no object
//	root-limit            there are too many roots
//
// Data ([Options].Data):
//
//	data-unreadable       a block cannot be read
//	data-checksum         a block does not match its checksum
//	data-padding          the last block has more than the recorded length
//	data-sums             a checksum page is not what was written
//
// Of a repair:
//
//	repair-refused        (note) nothing was mended, although something could be:
//	                      it is not certain what is right
//
// # Strictness
//
// Activation takes a log's operations as upserts, because a compaction and the
// changes during it overlap. The check does so only up to the end mark; behind
// it every operation must fit the state that it was made against. Where the log
// that a compaction replaced is still there, both must say the same at that
// moment.
//
// # Repair
//
// The formats have redundancy in three places, and that is what [Repair] uses:
//
//	superblock copies     three on each drive. Those that are missing, damaged,
//	                      older, different or misplaced are written anew from the
//	                      newest superblock of the pool, with the slot and UUID
//	                      that most of the drive's own copies have. A drive without
//	                      a valid copy of its own stays so: nobody knows which it is.
//	log-copy              each tail is written twice. The lost copy is written anew
//	                      if its slot holds nothing newer.
//	log-former            the log that a compaction replaced says nothing that
//	                      counts. It gets an empty tail, of its generation and
//	                      newer than all that it has. A metadata log without any tail
//	                      (log-no-tail) is one only where the other log was closed
//	                      cleanly by the last activation.
//
// A write that is cut off damages only what it was to mend: a superblock copy
// while another one of the drive is valid, a tail slot that counts for nothing, a
// pair of slots while the other pair has the log's tails. Logs of objects are
// written to only when the metadata is without a fault.
//
// # Invariants
//
//   - Run, Scan, Find and Dump write nothing, and open devices for reading only.
//   - Repair writes nothing but what it asked [Options].Confirm for, and leaves,
//     cut off at any moment, nothing that is worse than it was.
//   - It ends on any bytes, does not panic, and needs memory in proportion to the
//     metadata that is there, besides a MiB for each read of data under way.
//   - The same bytes give the same report.
//
// # Locks
//
// Tasks that verify data share two mutexes without a rank, one of the report
// and one of the work that is left; neither is held during I/O or a call of
// [Options].Progress.
package check

// The codes of problems and notes; see the package comment.
const (
	DeviceMissing       = "device-missing"
	DeviceForeign       = "device-foreign"
	DeviceTwice         = "device-twice"
	DeviceSmall         = "device-small"
	DeviceGrown         = "device-grown"
	SuperblockNone      = "superblock-none"
	SuperblockMissing   = "superblock-missing"
	SuperblockDamaged   = "superblock-damaged"
	SuperblockVersion   = "superblock-version"
	SuperblockOlder     = "superblock-older"
	SuperblockForeign   = "superblock-foreign"
	SuperblockMisplaced = "superblock-misplaced"
	SuperblockDiffers   = "superblock-differs"
	SuperblockFeatures  = "superblock-features"
	PoolDestroyed       = "pool-destroyed"
	Geometry            = "geometry"
	MetadataMissing     = "metadata-missing"

	LogNoTail         = "log-no-tail"
	LogBroken         = "log-broken"
	LogEpoch          = "log-epoch"
	LogAhead          = "log-ahead"
	LogCopy           = "log-copy"
	LogFormer         = "log-former"
	ContainerRecord   = "container-record"
	ContainerNone     = "container-none"
	ContainerTwice    = "container-twice"
	ContainerHandover = "container-handover"

	RecordMalformed   = "record-malformed"
	CreateExists      = "create-exists"
	DeleteAbsent      = "delete-absent"
	ChangeAbsent      = "change-absent"
	EraseBack         = "erase-back"
	CounterBack       = "counter-back"
	CounterAbove      = "counter-above"
	OwnerOrder        = "owner-order"
	PropertyValue     = "property-value"
	MetadataRoom      = "metadata-room"
	CompactionDiffers = "compaction-differs"
	CommitCut         = "commit-cut"

	ExtentDrive   = "extent-drive"
	ExtentOutside = "extent-outside"
	ExtentZones   = "extent-zones"
	ExtentSize    = "extent-size"
	ExtentOverlap = "extent-overlap"
	ObjectFields  = "object-fields"
	OwnerUnknown  = "owner-unknown"
	PartnerLink   = "partner-link"
	BirthTwice    = "birth-twice"
	RootDangling  = "root-dangling"
	RootLimit     = "root-limit"

	RepairRefused = "repair-refused"

	DataUnreadable = "data-unreadable"
	DataChecksum   = "data-checksum"
	DataPadding    = "data-padding"
	DataSums       = "data-sums"
)
