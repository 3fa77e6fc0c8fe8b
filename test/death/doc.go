// Package death ends client processes of the real daemon, by thousands and at
// any moment of any call, and in the odd ways in which processes end or seem
// to. It looks for what a dead client leaves behind in the daemon: handles,
// references, zones, memory, descriptors, goroutines; that the living notice
// nothing; and that what the dead were promised is kept.
//
// A victim is a process that brings itself to a state, says so and dies in a way:
// states_test.go and ways_test.go list them. What it was promised it has written
// into a pipe before, which is read when it is dead.
package death
