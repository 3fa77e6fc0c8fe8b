// Package crowd has thousands of clients, in many processes, connected to the real
// daemon: what they cost it, that its lists of them are whole and hold nobody up,
// that the end of all of them at once is told to who follows, and that after a
// restart all come back soon and not all at one time.
package crowd
