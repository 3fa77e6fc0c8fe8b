package ioctl

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var le = binary.LittleEndian

// Version is the protocol's version, which every header carries.
const Version = 1

// Sizes, in bytes.
const (
	HeaderSize = 24
	MaxMessage = 64 << 10 // of a message, header included
	MaxInline  = 32 << 10 // of data within a message; more travels through an arena
	ArenaAlign = 4096     // of every offset into an arena
)

// Flags of a header.
const (
	FlagReply uint16 = 1 << 0 // from the daemon
	FlagError uint16 = 1 << 1 // only with FlagReply: the body is an Error
)

const knownFlags = FlagReply | FlagError

// ErrMalformed is wrapped by every error of decoding: the bytes are no message
// of this protocol. The peer that sent them is not to be listened to any more.
var ErrMalformed = errors.New("malformed message")

// ErrTooLong is wrapped by every error of encoding: a field of the message is
// longer than the protocol allows.
var ErrTooLong = errors.New("too long for a message")

// Header begins every message. See the package's comment for its form.
type Header struct {
	Size     uint32 // of the whole message in bytes; set by Append
	Op       Op
	Flags    uint16
	Tag      uint64 // the client's own; the reply carries the same
	Deadline uint32 // milliseconds from receipt; 0: none
	Version  uint16 // set by Append when 0
}

// ParseHeader reads the header of a message and checks it against the
// message's length. It says nothing about whether the operation is known.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize || len(b) > MaxMessage {
		return Header{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	p := (*[HeaderSize]byte)(b)
	h := Header{
		Size:     le.Uint32(p[0:]),
		Op:       Op(le.Uint16(p[4:])),
		Flags:    le.Uint16(p[6:]),
		Tag:      le.Uint64(p[8:]),
		Deadline: le.Uint32(p[16:]),
		Version:  le.Uint16(p[20:]),
	}
	switch {
	case int(h.Size) != len(b):
		return Header{}, fmt.Errorf("%w: says %d bytes, has %d", ErrMalformed, h.Size, len(b))
	case h.Flags&^knownFlags != 0 || h.Flags == FlagError:
		return Header{}, fmt.Errorf("%w: flags %#x", ErrMalformed, h.Flags)
	case le.Uint16(p[22:]) != 0:
		return Header{}, fmt.Errorf("%w: reserved bytes of the header are not zero", ErrMalformed)
	case h.Version == 0:
		return Header{}, fmt.Errorf("%w: version 0", ErrMalformed)
	}
	return h, nil
}

// Append appends a whole message to dst, which should have room for it, and
// returns it. It fails when a field is too long (ErrTooLong); dst is then as it
// was.
func Append(dst []byte, h Header, m Message) ([]byte, error) {
	w := writer{b: dst}
	start := len(dst)
	p := w.block(HeaderSize)
	if h.Version == 0 {
		h.Version = Version
	}
	le.PutUint16(p[4:], uint16(h.Op))
	le.PutUint16(p[6:], h.Flags)
	le.PutUint64(p[8:], h.Tag)
	le.PutUint32(p[16:], h.Deadline)
	le.PutUint16(p[20:], h.Version)
	m.encode(&w)
	size := len(w.b) - start
	if w.err == nil && size > MaxMessage {
		w.err = fmt.Errorf("%w: %v of %d bytes", ErrTooLong, h.Op, size)
	}
	if w.err != nil {
		return dst[:start], w.err
	}
	le.PutUint32(w.b[start:], uint32(size))
	return w.b, nil
}

// Decode reads a message's body, all of it, into m. Byte slices within m alias
// body; everything else is copied. It fails with ErrMalformed.
func Decode(m Message, body []byte) error {
	r := reader{b: body}
	m.decode(&r)
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	return r.err
}
