// Package exitwatch notices the deaths of processes through the kernel's exit
// tracepoint: a [uhandle.Source] that is earlier than a pidfd, which is ready
// only when the process's memory has been torn down (milliseconds per GiB).
//
// A program of a few dozen instructions runs in the kernel at the tracepoint
// sched_process_exit, for every thread of the host that exits. If the thread is
// the last of its process, and the process is in a map of those that are
// watched, the program puts a record into a ring buffer, from which one
// goroutine takes it:
//
//	 0        8             12          16                     24
//	+--------+-------------+-----------+----------------------+
//	|process |wait status  |0          |ns of CLOCK_MONOTONIC |   in the machine's byte order
//	+--------+-------------+-----------+----------------------+
//
// # Which process
//
// A process is known by the number that the kernel gives its struct pid and
// shows as the inode number of its pidfds (Linux 6.9; [uhandle.Process.Inode]).
// It counts up from boot and is never given again, so a pid that is another
// process's by now is harmless; it is the same in every pid namespace, the
// daemon's own included; and a thread other than the first that calls exec, and
// so becomes the first, does not change it.
//
// # What it needs
//
// Linux 6.9 on a 64-bit machine, the kernel's type information (BTF), CAP_BPF
// and CAP_PERFMON. Where the fields lie and what the tracepoint is passed is
// looked up in the type information of the kernel that runs, when the source is
// opened; a second program, run once, proves that the kernel and the pidfd agree
// on the number of this very process. Since Linux 6.16 the tracepoint comes
// before the memory is torn down and says whether the thread is the last
// ([Source.Early]); before, the program counts the threads that live and the
// source is hardly earlier than the pidfd.
//
// # What it may miss
//
// It is a hint that comes early, never the only word: the pidfd always watches
// too. A death is missed, and noticed by the pidfd, if it comes before the
// watch; if the map is full (the watch fails); if the ring is full, because the
// goroutine gets no time ([Stats].Lost); if the kernel skips the program, as it
// does when that is running on the same core already; and if the program is no
// more attached, or somebody has emptied its map. A watch that is stopped when its
// process is dead and nothing was told counts as missed: after three in a row
// the Source is not up, and says why, once, to [Options].Trouble; it is again with
// the next death that is told.
//
// A process that dumps core is dead when that is done.
//
// # Its thread
//
// The goroutine that takes the records has a thread of its own, which the kernel runs
// before others where it may ([Source.Prompt]): a process that dies keeps a processor
// busy, and who reads of it would else wait for that.
//
// # Lock order
//
// Source.mu is taken alone. Changes of the kernel's map are made under it, which
// wait for nothing.
//
//	src, err := exitwatch.Open(exitwatch.Options{})
//	if err != nil {
//		return err // the pidfds must do
//	}
//	defer src.Close()
//	v, err := uhandle.Watch(process, []uhandle.Source{src, uhandle.Pidfd{}}, act)
package exitwatch
