// Package metamorphic does the same list of operations, drawn from a seed, with pools
// that differ in what must not matter to a program: the engine of the I/O, the sizes of
// zones and sectors, one drive or several, in process or through the daemon, with rings
// or over the socket, with credits and a cache of objects or without, with reads that
// verify or not. What the program sees must be the same: bytes, lengths, numbers, codes
// of errors, which objects, roots and owners there are, and what they are.
//
// Left out is what depends on geometry: the space that objects occupy, where a pool or
// a log is full, usage of containers; times and birth stamps; and references, which a
// connection with credits counts itself.
//
// Of a difference the list is shortened to what is needed for it.
package metamorphic
