// Package mblock is the data path of one mblock: a run of zones that is written
// once, sealed, committed by whoever keeps the metadata, and then only read.
//
// A [Writer] is an uncommitted mblock. It appends, keeps the checksums of what
// it wrote in memory, and [Writer.Seal] makes all of it durable; what Seal
// returns belongs into the object's metadata record. A [Reader] reads a
// committed mblock and verifies every block. This package writes no metadata.
//
// # On media
//
// An mblock begins where its extent begins. Blocks have 4,096 bytes; the last
// one is padded with zeros. Numbers are little-endian.
//
//	extent
//	+--------+--------+-- --+----------+----------+-- --+----------+- - - -+
//	| data 0 | data 1 | ... | data n-1 | sums 0   | ... | sums m-1 |       |
//	+--------+--------+-- --+----------+----------+-- --+----------+- - - -+
//	n = written length / 4096, rounded up
//	m = 0 when n <= 16, else n / 1016, rounded up
//
// The checksum of data block i is the CRC32C of its birth stamp (8 bytes), of i
// (8 bytes) and of its 4,096 bytes. So a block of another object, of a former
// life of the space, or from another place of the same object does not pass for
// it, and the data can move between drives together with its checksums. Up to
// 16 checksums are in the metadata record; the write of a small object is one
// I/O. More are in the checksum pages, apart from the data they are of.
//
// Checksum page j holds the checksums of blocks 1016*j to 1016*j + count - 1:
//
//	offset  size
//	     0     4  magic "mSm1"
//	     4     1  version, 1
//	     5     3  reserved, zero
//	     8     8  birth stamp
//	    16     4  j
//	    20     4  count: 1016 but in the last page
//	    24     4  reserved, zero
//	    28     4  CRC32C of birth stamp (8 bytes), j (8 bytes) and this page with
//	              these 4 bytes zero
//	    32  4064  1,016 checksums of 4 bytes; those after count are zero
//
// A page names its object and its place, and its count follows from the written
// length in the metadata record, so that a lost, misdirected or stale write of a
// page is found as one of data is.
//
// # Invariants
//
//   - Nothing is written to an extent after Seal has succeeded.
//   - What a read returns was verified after the device delivered it, unless the
//     Reader was told not to verify. When verification fails, none of the bytes
//     from the failed block on are left in the caller's memory.
//   - An operation pins the object (Config.Pin) from before its I/O starts until
//     the device no longer touches memory or media for it, also when its context
//     ended the wait.
//   - The caller's memory is not touched after a call has returned, or its End.
//     Where a context can end a wait, the device works on memory of this package's
//     own.
//   - Memory that others change while it is written or read harms those blocks of
//     that call only: they do not pass their checksums. What is kept for others
//     (checksum pages) is read into memory of this package's own.
//   - What [Writer.Seal] has returned is durable; what [Writer.SealWritten] says is
//     unflushed becomes so with the next flush of the drive that succeeds, if none
//     has failed since the ticket.
//   - After a failed write or flush the Writer is poisoned: every call but
//     reading its error fails with EIO.
//
// # Two halves
//
// [ReadOp] and [WriteOp] are reads and writes for callers that drive I/O queues
// themselves: Begin checks, pins and prepares device operations, End verifies and
// unpins, and neither waits. The calls that wait do the same two around
// bdev.Drive.Run.
//
// Data is not cached and not read ahead. Who reads small pieces in order puts a
// buffer before the Reader. Checksum pages are cached, and a large read fetches
// those that the next ones need.
//
// # Locks
//
// A Writer has one mutex of rank sched.RankObject, held for a few instructions
// and never during I/O. Reader and [SumCache] have none.
//
// # Example
//
//	w := mblock.NewWriter(cfg)
//	_, err := w.Write(ctx, data)
//	sealed, err := w.Seal(ctx)
//	// put sealed into the object's record and make that durable, then:
//	r := mblock.NewReader(cfg, object, cache, true)
//	n, err := r.ReadAt(ctx, p, 0)
package mblock
