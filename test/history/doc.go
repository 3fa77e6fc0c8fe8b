// Package history runs client processes against the real daemon, on the same
// objects, roots and logs, records what each call was asked and answered and when,
// and lets a checker (porcupine) look for an order of the calls that explains all
// answers: one in which each call has its effect at one moment between its begin and
// its end, and each answer is what the model of the object says at that moment.
//
// Some calls are two steps of a model, because what they do becomes visible in two:
// a delete refuses new references before it is done (S15), an append with sync is in
// the log before it is durable (S21), a commit of many publishes its objects one by
// one (S12). What a call may have done whose answer was lost is both: done and not.
//
// The daemon is killed in between. A kill is an operation of every history, from the
// moment before the signal to the moment after the process was waited for: it ends all
// handles and uncommitted objects and keeps all that anybody has seen to be durable.
//
// A history is of one object, one log, or of all roots. Moments are of
// CLOCK_MONOTONIC, which all processes of a host share.
package history
