// Package uhandle keeps what a client process has: a table of handles, numbers
// that stand for what the process holds until it gives it up or dies; and it
// notices the death. It knows no storage.
//
// A handle is
//
//	 63          32 31    24 23           0
//	+--------------+--------+--------------+
//	|  generation  |  kind  |     slot     |
//	+--------------+--------+--------------+
//
// The generation of a slot rises each time the slot is given again, and starts
// at a number chosen for the table. A handle that was given up, one of another
// kind, one of another table (unless their generations meet: one in 2^32) and
// one that was never given are therefore told from a live one, and are EBADF.
//
// A value in the table ends once: it is released by whoever ended the handle if
// nobody was using it, else by the last of those that were. Nobody waits for
// anybody.
//
// # Death
//
// A [Process] is held by its pidfd, never by its number, which is another's
// once the process is gone. A [Vigil] watches it through one or more sources: the
// pidfd always ([Pidfd]), others that are earlier where there are some
// (package exitwatch has one). The first source that notices acts; the others
// find it done. That a process's socket has ended is for its owner to see, who
// then asks [Vigil.Verdict] how the process ended, if it did.
//
// How it ended, the kernel says to those who may know: /proc/PID/stat between
// the end and its parent's taking note of it, the pidfd itself after that (Linux
// 6.15), which does not tell of a core that another thread than the first dumped.
// Nobody waits for that but the verdict, and that for 100 ms at most, and
// only if the process is known to be dying.
//
// A Vigil has a goroutine for each process that [Pidfd] watches; it ends with
// the process or with [Vigil.Stop].
//
// # Lock order
//
// Under Table.mu (sched.RankHandle) one call leaves the package: [Table.Take] asks
// its may, which takes locks of later ranks only. Vigil.mu is taken alone.
package uhandle
