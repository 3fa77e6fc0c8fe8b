// Package uhandle is a client process's table of handles: numbers that stand
// for what the process holds, until it gives it up or dies.
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
// The table knows no storage. A value in it ends once: it is released by
// whoever ended the handle if nobody was using it, else by the last of those
// that were. Nobody waits for anybody.
//
// # Lock order
//
// Table.mu (sched.RankHandle) is taken alone: no call out of the package is
// made under it.
package uhandle
