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
// and pwrite within the io_uring engine too. [Auto] takes the pread engine where
// that is better: for a device that cannot be asked without blocking (zram, for
// one), for which io_uring would hand each operation to a kernel thread, at
// several times the cost; and for files of FUSE, where the kernel may go on with
// a write that was done in part at a wrong place. A [Queue] over io_uring hands
// operations of the latter to the drive's engine; the former wait in kernel
// threads, not in the queue's owner.
//
// # What a ring of blocking callers leaves behind
//
// The ring that blocking callers share does not interrupt threads for
// completions. A thread that submitted an operation for a goroutine and then
// runs another one that computes may be late in making its completion: until a
// leader kicks it, within about a millisecond as long as others come and go or
// hardly anything is under way, or at its timer tick at the latest (1 to 10 ms). A Queue has no such delay.
//
// # Flushes and FUA
//
// Durability is by flushes (fdatasync), never by FUA writes, whatever
// [Geometry].FUA says. A flush serves all who wait for one, a FUA write its
// maker only; and where a queue has no FUA the kernel makes each such write
// two flushes: on loop devices that took 40 to 55 % longer for log records.
package bdev
