// Package client is a pool's user's side of the daemon's socket: [Dial] gives a
// connection, which implements [api.Manager] and opens pools that implement
// [api.Pool]. It carries no engine.
//
//	c, err := client.Dial(ctx, client.Options{})
//	p, err := c.OpenPool(ctx, "data")
//	b, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: 32 << 20})
//	_, err = b.Write(ctx, buf)
//	err = b.Commit(ctx)
//
// One connection is one handle table: what it opened is its own, and is given
// back by the daemon when the connection or the process ends; uncommitted
// objects are then gone. A connection belongs to the process that dialed: a
// child that inherits it cannot use it.
//
// # Data
//
// Up to ioctl.MaxInline bytes travel within a message; more goes, in pieces,
// through memory shared with the daemon, which is asked for when it is first
// needed. If the daemon has none to give everything travels in messages.
//
// # Deadlines
//
// A context's deadline goes with the request, and its end is told to the
// daemon. The call then waits a moment for the daemon to say what became of the
// request. If it does not, the call returns: with EUNKNOWN if the request may
// have changed something, else with the context's error. What the request may
// yet give, a handle say, is given back when it comes.
//
// # Errors
//
// When the connection is gone every call fails with ECONNRESET; one whose
// request may have been done fails with EUNKNOWN that wraps it. Dial again; old
// handles stay dead.
package client
