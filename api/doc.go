// Package api is what a user of a pool sees, in process or through the daemon:
// the interfaces [Pool], [Mblock], [Mlog] and [MDC], their options, and the one
// vocabulary of errors.
//
// Package mpool implements it in process (no daemon; the program owns its
// drives); package client implements it over the daemon's socket. One suite of
// behaviour tests runs over both.
//
// # Handles and references
//
// Every call that gives an [Mblock] or [Mlog] takes one reference on the object
// and gives a handle for it. Put, Abort and Delete end the handle; any use
// after that is EBADF. An object lives until it is deleted, not until the last
// Put. All methods are safe for concurrent use unless they say otherwise.
//
// # Hand-over
//
// An uncommitted object is its process's. [Object.Grant] gives a token that another
// process shows to [Pool.Accept]: with that the object, what was written of it, the
// reference and the right to write, commit and abort move from the one to the other
// in one step. At every moment the object is exactly one process's: if the giver
// dies before, it is aborted and the token is worth nothing; if the taker dies
// after, it is aborted as any uncommitted object of the taker's. How the token gets
// from the one to the other is theirs to choose.
//
// # Contexts
//
// Every operation takes a context. When it ends first, the operation either did
// not happen (the error wraps the context's) or its outcome is unknown
// ([EUNKNOWN]). A buffer given to an operation is the caller's again when the
// operation returns, whatever it returns.
package api
