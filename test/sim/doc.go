// Package sim proves the engine's promises on a simulated device: random
// workloads of several tasks, a power cut (or the process's death) at an I/O
// boundary, several of the media that the cut may leave, and after each a
// comparison with a model of what was acknowledged.
//
// Everything follows from one number. A failure prints the command that replays
// it:
//
//	go test ./test/sim -run TestCrashRandom -sim.seed=N
//
// A run of this package counts for something because a listed set of mutants of
// the engine makes it fail; see package test/mutants.
package sim
