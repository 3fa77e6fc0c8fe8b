package ioctl

import "fmt"

// Message is the body of a message. Only this package has implementations.
type Message interface {
	encode(w *writer)
	decode(r *reader)
}

// maxBlock is the size of the longest fixed part of a message, in bytes.
const maxBlock = 384

// writer appends a message's parts. After the first error, which it keeps, what
// it appends means nothing.
type writer struct {
	b   []byte
	err error
}

// block appends n zero bytes and returns them to be filled.
func (w *writer) block(n int) []byte {
	start := len(w.b)
	if cap(w.b)-start >= n {
		w.b = w.b[:start+n]
		clear(w.b[start:])
	} else {
		w.b = append(w.b, make([]byte, n)...)
	}
	return w.b[start:]
}

// str appends a string of at most limit bytes with its length before it.
func (w *writer) str(s string, limit int, what string) {
	if len(s) > limit {
		w.fail(what, len(s), limit)
		return
	}
	w.b = le.AppendUint16(w.b, uint16(len(s)))
	w.b = append(w.b, s...)
}

// cut appends as much of a string as limit allows.
func (w *writer) cut(s string, limit int) {
	w.str(s[:min(len(s), limit)], limit, "text")
}

// count appends a list's length.
func (w *writer) count(n, limit int, what string) {
	if n > limit {
		w.fail(what, n, limit)
		return
	}
	w.b = le.AppendUint16(w.b, uint16(n))
}

func (w *writer) fail(what string, n, limit int) {
	if w.err == nil {
		w.err = fmt.Errorf("%w: %s of %d, at most %d", ErrTooLong, what, n, limit)
	}
}

// reader takes a message apart. After the first error, which it keeps, it gives
// zeros.
type reader struct {
	b   []byte
	err error
}

var zeroBlock [maxBlock]byte // never written

// block takes n bytes, n <= maxBlock. The caller must not write to them.
func (r *reader) block(n int) []byte {
	if r.err == nil && len(r.b) < n {
		r.fail("%d bytes short", n-len(r.b))
	}
	if r.err != nil {
		return zeroBlock[:n:n]
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// reserved fails if a byte of b is not zero.
func (r *reader) reserved(b []byte) {
	for _, c := range b {
		if c != 0 {
			r.fail("reserved bytes are not zero")
			return
		}
	}
}

// bits fails if v has bits that are not in known.
func (r *reader) bits(v, known uint8) {
	if v&^known != 0 {
		r.fail("flags %#x", v)
	}
}

// raw takes n bytes.
func (r *reader) raw(n int) []byte {
	if r.err == nil && (n < 0 || n > len(r.b)) {
		r.fail("%d bytes of data, %d there", n, len(r.b))
	}
	if r.err != nil {
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// str takes a string of at most limit bytes.
func (r *reader) str(limit int) string {
	n := int(le.Uint16(r.block(2)))
	if n > limit {
		r.fail("a string of %d bytes, at most %d", n, limit)
	}
	return string(r.raw(n))
}

// count takes a list's length: at most limit, and no more than there are bytes
// for if each entry has at least size.
func (r *reader) count(limit, size int) int {
	n := int(le.Uint16(r.block(2)))
	if n > limit || n*size > len(r.b) {
		r.fail("a list of %d entries in %d bytes, at most %d entries", n, len(r.b), limit)
	}
	if r.err != nil {
		return 0
	}
	return n
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
	}
}

func bit(on bool, b uint8) uint8 {
	if on {
		return b
	}
	return 0
}
