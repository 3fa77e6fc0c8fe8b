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
//	                    Drive.Run, Drive.Flush         Queue.Put, Reap
//	                              |                           |
//	          Engine: blocking callers share it      one ring, one thread
//	         /                |              \                |
//	  ring, led by      workers with     bdev/sim        the device
//	  one who waits   pread and pwrite
//
//	drive, err := bdev.Open(ctx, nil, "/dev/nvme0n1", bdev.OpenOptions{})
//	buf := bdev.AllocBuffer(4096)
//	op := &bdev.Op{Code: bdev.OpRead, Offset: 8192, Buf: buf}
//	batch := &bdev.Batch{Ops: []*bdev.Op{op}, Detached: func() { bdev.FreeBuffer(buf) }}
//	err = drive.Run(ctx, batch)
//	if !errors.Is(err, bdev.ErrDetached) {
//		bdev.FreeBuffer(buf)
//	}
//
// # Invariants
//
//   - Every operation ends once, by Op.Complete; whole, or with an error. A
//     wait may end before, by its context; the operations go on, and
//     Batch.Detached tells of their end.
//   - Operations under way are bounded per drive (OpenOptions.QueueDepth); who
//     waits for room is served in the order of coming and leaves when his
//     context ends. So is what a hanging device occupies: threads, and kernel
//     threads for each thread that submits (OpenOptions.MaxWorkers).
//   - As long as an operation is under way in a shared ring, somebody reaps, or
//     is about to; see the comment at uringEngine.
//   - A drive is open once on a host: by O_EXCL, by flock, and by knowing which
//     file is under which loop device.
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
//
// # Locks
//
// sched.RankDrive: the flusher's, held for no I/O. sched.RankQueue: an
// engine's, innermost; held while entries are written to a ring, never over a
// callback. Op.OnDone and Batch.Detached run without a lock of this package.
//
// # Choice of engine
//
// io_uring has the higher rate as soon as several operations are under way. Who
// has a drive for himself, with a context that never ends, is served by pread
// and pwrite within the io_uring engine too. A device that cannot be asked
// without blocking (zram, for one) makes io_uring hand each operation to a
// kernel thread: there the pread engine may be the faster one.
package bdev
