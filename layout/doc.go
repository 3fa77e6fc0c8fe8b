// Package layout holds what an object of a pool is: its id, its birth stamp,
// where it lies, and the table of all committed objects.
//
// A pool of ten million objects keeps ten million entries in memory for as long
// as it is active. The table is therefore free of pointers (the collector does
// not look into it) and packed: see [Table]. Objects somebody uses now have
// more state (references, pins, open logs); that state lives outside the table
// and only while it is needed.
//
// # Invariants
//
//   - An id and a birth stamp are never given twice in a pool's life.
//   - The table holds committed objects only; an uncommitted object is in
//     memory of its own until its commit is durable.
package layout
