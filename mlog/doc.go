// Package mlog is the append-only log of records over an extent of a drive, and
// the metadata container made of two logs.
//
//	l, err := mlog.Open(ctx, mlog.Config{Drive: d, Extent: e, Birth: b, Generation: g, Epoch: n})
//	number, err := l.AppendSync(ctx, record)
//	r := l.NewReader(mlog.ReaderOptions{})
//	record, err := r.View(ctx)
//
// # The extent
//
// A log lies in one extent of pages of 4096 bytes, whatever the drive's sector
// size; writes may tear at 512 bytes. Everything is little-endian.
//
//	page   0      1      2      3      4    5    6           n-1
//	     +------+------+------+------+----+----+----+-     -+----+
//	     | tail | tail | tail | tail | 0  | 1  | 2  |  ...  |    |  final pages
//	     +------+------+------+------+----+----+----+-     -+----+
//	      \_ pair A __/ \_ pair B __/
//
// Record data fills final pages one after another. A page is written to its
// final place when it is full, and never again once it is durable. The page
// that is being filled, the tail, is written to the two pairs in turn, twice
// each time, so that the newest durable copy is never written to.
//
// # A page
//
//	 0      magic      "mLg1"
//	 4      version    1
//	 5      flags      bit 0: a tail; bit 1: written by a clean close
//	 6  2   used       payload bytes in use; the rest of the page is zero
//	 8  8   birth      the log's birth stamp
//	16  8   generation of the log: each erase raises it
//	24  8   epoch      of the pool's activation that wrote the page
//	32  8   group      that wrote the page, from 1
//	40  8   durable    the highest group known durable then, less than group
//	48  8   first      record that the first fragment belongs to; in a page
//	                   without fragments, the next record
//	56  4   index      of the final page that this is; of a tail: will be
//	60  4   prev       CRC of final page index-1; 0 if index is 0
//	64  4   crc        CRC32C of birth and index, then of the page with crc 0
//	68  4   reserved   0
//	72 4024 payload    fragments
//
// A fragment is a record or a part of one:
//
//	0  2   length     data bytes here
//	2  1   type       1 full, 2 first, 3 middle, 4 last
//	3  1   reserved   0
//	4  4   total      data bytes of the whole record, at most 16 MiB
//	8      data
//
// Fragments follow each other without gaps. A page in which no fragment fits is
// full: fewer than 8 bytes are left, or exactly 8 and the next record has data
// (an empty one takes them). A tail has room, and ends at a record's end. The
// tail's index may be the number of final pages, when it is empty.
//
// Golden images with their annotation are in testdata.
//
// # Groups
//
// Appends fill page images in memory. A group is what one write and one flush
// make durable: the pages that became full since the last group, to their final
// places, and the tail as it is now, to the pair that does not hold the newest
// durable one. A group ends at a record's end, takes everything appended so
// far, and is alone in flight; whoever comes meanwhile waits for the next one.
// Group numbers rise through a generation. A clean close writes one more group,
// marked as such, if anything was appended: it says that the one before it is
// durable. So does [Log.Confirm], without a mark.
//
// A group's flush makes durable what was written to the drive before it, also
// what is none of the log's. [MDC.AppendData] appends a record of such data: a
// crash before the flush may leave the record without the data, so whoever opens
// the container asks [MDC.Unsure] for the records of which nothing says that they
// were durable.
//
// What nobody writes who waits for it, the drive's [Writers] write, if the log has
// them: the groups of several logs by one submission and one flush. A log with a
// large group, or one that would make theirs together large, or without
// [Config].Writers, has a writer task of its own.
//
// Who waits for a group is a task that the group's end wakes, or somebody who left
// word how to be told ([Log.BeginAppend]) and does not wait: an I/O loop, for the
// clients of a daemon. Neither come back at once: half of the tasks are run by another
// processor, which has to wake, and the others come through other threads and
// processes, one after another. The writer gives as many as it told last time, or of
// several logs those who had come by then, a moment to come before it begins the next
// group, if that has paid lately.
//
// If a write or a flush fails, the log is poisoned: nothing is tried again, the
// records of that group are of unknown state (EUNKNOWN), later ones are refused
// (EIO).
//
// # Erase
//
// [Format] writes the empty tail of the new generation, group 1, to the pair
// that does not hold the tail of the current one, and flushes. Then the caller
// records the generation. Until that is durable the old log is whole.
//
// # Recovery
//
// Opening finds the end of the log from the extent, the birth stamp and the
// generation alone:
//
//  1. A tail slot counts if everything about it is right: CRC, birth,
//     generation, structure. The newest has the highest (epoch, group).
//  2. Final pages are read from 0 on as long as each is right, carries the CRC
//     of the one before, is not older than it, and goes on with its records.
//  3. The log ends with the newest tail that stands on such pages: they reach to
//     its index, the last has the CRC that the tail names, the records go on.
//     A tail of a group that was cut off stands on pages that are not there;
//     the tail before it, in the other pair, is then the end.
//  4. Each page says which group was durable when it was written. If some page
//     says more than the tail that was found, the log is not shorter, it is
//     broken: ECORRUPT, with the place.
//  5. What was found is flushed, for it may be in the drive's cache only.
//
// Nothing is written. Pages that a cut-off group left behind the end never come
// back: later pages have a higher epoch and other CRCs, so the old ones fit no
// chain. Groups of the new activation have numbers above all that were seen.
//
// The stated exception: when both copies of the last group's tail rot, or a
// final page that this group was the first to write, and neither a later group
// nor a clean close says that the group was durable, the log ends before it, as
// if its write had been cut off.
//
// A page that cannot be read at all (EIO from the medium) is taken for one that
// is not right, since a torn write may leave it so, after a second try and a
// proof that the drive still reads its tails.
//
// # Metadata containers
//
// An [MDC] is two logs used in turn. Its records carry a byte in front:
//
//	1 data    the user's record
//	2 start   uint64: generation of the log that is being replaced
//	3 end     uint64: how many records that log had at the switch
//
// Record 0 of each log is a start mark. A log without an end mark is a
// compaction that did not end. The active log is the one of the highest
// generation that has one. A compaction erases the other log at a generation
// above both (also above those that were tried and given up), writes the start
// mark and the live state, while appends go to both logs; it ends when the end
// mark is durable, before which everything appended to the old log is. If that
// mark's write fails, which log counts is unknown until the next open, and the
// container is poisoned. Before the end mark records are upserts: they may
// repeat what the compaction wrote.
//
// # Invariants
//
//   - No write touches the only copy of bytes that were acknowledged.
//   - After a crash at any moment a log is a prefix of what was appended, with
//     everything that was acknowledged, and no record in part.
//   - Nothing of an earlier generation, and nothing that an earlier recovery cut
//     off, comes back.
//   - Memory for what is not yet durable is bounded: 4 MiB of full pages, and
//     what one record exceeds that.
//   - A log has at most one writer, and none when there is nothing to write. It
//     observes no caller's context.
//
// # Lock order
//
//	MDC.mu (mdc) → Log.mu (log) → Writers.mu and the drive's own
//
// Neither is held across I/O or a call of a hook.
package mlog
