package death

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/mpool-go/mpool/api"
)

// tag names an object of a victim's: whose it is, its number, and which one of
// those committed together. Everything about the object follows from it, so
// that whoever finds the object knows what it has to be.
type tag uint64

func newTag(serial uint32, seq uint32, member int) tag {
	return tag(uint64(serial)<<32 | uint64(seq&0xffffff)<<8 | uint64(member))
}

func (t tag) serial() uint32 { return uint32(t >> 32) }

// group is the tag of the first of those committed together.
func (t tag) group() tag { return t &^ 0xff }

// mix is a hash of numbers.
func mix(a ...uint64) uint64 {
	h := uint64(0x9e3779b97f4a7c15)
	for _, v := range a {
		h ^= v
		h ^= h >> 30
		h *= 0xbf58476d1ce4e5b9
		h ^= h >> 27
		h *= 0x94d049bb133111eb
		h ^= h >> 31
	}
	return h
}

// size is the length of the mblock of a tag: most are small, some need shared
// memory and more than one request.
func (t tag) size() int {
	h := mix(uint64(t), 1)
	switch n := int(h >> 32); h % 8 {
	case 0:
		return n % (1500 << 10)
	case 1, 2:
		return n % (200 << 10)
	case 3:
		return 0
	default:
		return n % (30 << 10)
	}
}

// fill makes content that follows from a number.
func fill(b []byte, number uint64) {
	var w [8]byte
	for i := 0; i < len(b); i += 8 {
		number += 0x9e3779b97f4a7c15
		v := number
		v ^= v >> 30
		v *= 0xbf58476d1ce4e5b9
		binary.LittleEndian.PutUint64(w[:], v^v>>27)
		copy(b[i:], w[:])
	}
}

func (t tag) content() []byte {
	b := make([]byte, t.size())
	fill(b, mix(uint64(t), 2))
	return b
}

// record is a record of the log of a tag. It says its number, and so what it
// has to be.
func (t tag) record(number uint64) []byte {
	h := mix(uint64(t), 3, number)
	size := int(h>>32) % 700
	if h%16 == 0 {
		size = int(h>>32) % 50_000
	}
	b := make([]byte, 8+size)
	binary.LittleEndian.PutUint64(b, number)
	fill(b[8:], h)
	return b
}

// compact is the record that stands for all those up to a number.
func (t tag) compact(number uint64) []byte {
	b := make([]byte, 16)
	binary.LittleEndian.PutUint64(b, ^uint64(0))
	binary.LittleEndian.PutUint64(b[8:], number)
	return b
}

// errWrong is wrapped by the errors of those who got other bytes than they have
// to.
var errWrong = errors.New("wrong bytes")

// matches reads an mblock and compares it with what its tag says.
func (t tag) matches(ctx context.Context, b api.Mblock) error {
	want := t.content()
	got := make([]byte, len(want)+1)
	n, err := b.ReadAtContext(ctx, got, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if n != len(want) || !bytes.Equal(got[:n], want) {
		return fmt.Errorf("%w: mblock %v of tag %x: %d bytes that are not the %d written", errWrong, b.ID(), t, n, len(want))
	}
	return nil
}

// recognize says what a record is that should be another.
func (t tag) recognize(rec []byte) string {
	if len(rec) < 8 {
		return "it is too short"
	}
	n := binary.LittleEndian.Uint64(rec)
	return fmt.Sprintf("it says that it is %d, and has its bytes: %v", n, n < 1<<32 && bytes.Equal(rec, t.record(n)))
}

// count reads a log or a container to its end, compares each record with what
// it has to be, and returns how many there are, those included that a
// compaction put into one.
func (t tag) count(ctx context.Context, r api.LogReader) (uint64, error) {
	buf := make([]byte, 64<<10)
	for n := uint64(0); ; {
		k, err := r.Next(ctx, buf)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		rec := buf[:k]
		switch {
		case k == 16 && n == 0 && binary.LittleEndian.Uint64(rec) == ^uint64(0):
			n = binary.LittleEndian.Uint64(rec[8:])
			if !bytes.Equal(rec, t.compact(n)) {
				return n, fmt.Errorf("%w: log of tag %x: a broken summary", errWrong, t)
			}
		case bytes.Equal(rec, t.record(n)):
			n++
		default:
			return n, fmt.Errorf("%w: log of tag %x: record %d of %d bytes is not what was appended: %s", errWrong, t, n, k, t.recognize(rec))
		}
	}
}
