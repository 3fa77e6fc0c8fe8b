// Package powercut cuts the power of the drives under the real daemon, again and
// again, and compares what is found afterwards with what real client processes
// were told.
//
// A drive is a file of package faultfs, whose write cache is volatile, bare or
// under a loop device. One round of a pool:
//
//	clients work ──► the drives are gone ──► deactivated ──► the power cut: of what
//	   ▲             (ENODEV, at any I/O)    (detached)      was not flushed anything
//	   │                                                     is lost, kept, torn
//	   └── clients compare ◄── activated ◄── (attached) ◄── the offline checker
//
// Several pools go through their rounds at the same time, in one daemon. In some
// rounds the daemon is killed, with or without a power cut of all drives; in some
// a drive also fails a flush or a write, is full, cuts writes short or stalls.
//
// A client keeps a ledger of what it has asked for and what it was told: mblocks
// committed alone, in one call and many at once, roots, records of logs, changes
// of containers, deletes, erases. What was acknowledged must be there, what was
// refused must not, and what is of unknown outcome must be there whole or not at
// all. The space must add up.
//
//	go test ./test/powercut                                # a few seconds
//	go test ./test/powercut -timeout 1h -powercut.cuts=5000 -powercut.pools=6
package powercut
