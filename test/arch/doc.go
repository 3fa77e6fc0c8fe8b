// Package arch holds the tests of the architecture: which package may import
// which, and what the engine's source may not contain. It has no code of its
// own; see docs/architecture.md for the reasons in full.
//
// # Imports
//
// The table in rules_test.go names for every package of the module which of the
// module's other packages it may import, and why. Arrows go down only. A new
// package needs a row. Some packages also have a closure: all that may stand
// below them, however far.
//
// # Source
//
// The engine runs whole in a simulation, from one number. Its packages
// therefore start no goroutine and use no channel, select, package sync (atomics
// aside), wall clock, real context deadline, random number or order of a map but
// through package sched. Ranging over a map is allowed on a line with the
// comment
//
//	// order does not matter: <reason>
//
// Files that drive real devices are exempt; the test lists them by name. An
// exemption that nothing needs is an error too.
package arch
