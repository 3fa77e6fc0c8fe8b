// Package bdev does I/O on block devices and on regular files that stand for
// one: opened exclusively and with O_DIRECT, through io_uring or, where that is
// refused, through pread and pwrite.
//
// # Shape
//
// An [Op] is one read, write, flush or discard. A [Drive] starts operations on
// one device and counts them; blocking callers use [Drive.Run] with a [Batch].
// Somebody who drives I/O himself (the daemon's I/O loop, a benchmark) owns a
// [Queue] and puts operations of any drive on it. What does the work is an
// [Engine]: io_uring, pread/pwrite, or the simulated device of bdev/sim.
//
// # Flushes
//
// A write is durable when a flush that began after the write ended has
// succeeded. [Drive.Flush] shares flushes among all who ask (this is group
// commit, for everyone). A failed flush may have lost any write since the last
// good one, and a later flush that succeeds says nothing about them (the kernel
// forgets). So a writer takes a [Ticket] before its first write and gives it to
// Flush: if any flush failed since, the writer gets [ErrFlushFailed], for ever.
//
// # Buffers
//
// Memory for I/O comes from [AllocBuffer]: off the Go heap, aligned, recycled.
// The device may touch an operation's memory until the operation has ended,
// also when a context ended the wait for it: see [Batch].
package bdev
