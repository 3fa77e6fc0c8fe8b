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
// and with -sim.shrink=30s looks for a smaller run that fails so.
//
// Beside that, each public call that does I/O is played alone and in order: see
// scenario. Its I/Os fail, are cut off and torn in turn, it is refused what it
// needs, and flushes lie under it. There the states that undisturbed runs leave are
// the model. -sim.all runs all of it, a part is run by default, and -sim.case one.
//
// A run of this package counts for something because a listed set of mutants of
// the engine makes it fail; see package test/mutants.
package sim
