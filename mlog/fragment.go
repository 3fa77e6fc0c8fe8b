package mlog

import (
	"encoding/binary"
	"iter"
)

// FragmentType says which part of its record a fragment is.
type FragmentType uint8

// The types of fragments.
const (
	FragmentFull   FragmentType = 1 // the whole record
	FragmentFirst  FragmentType = 2
	FragmentMiddle FragmentType = 3
	FragmentLast   FragmentType = 4
)

func (t FragmentType) String() string {
	switch t {
	case FragmentFull:
		return "full"
	case FragmentFirst:
		return "first"
	case FragmentMiddle:
		return "middle"
	case FragmentLast:
		return "last"
	default:
		return "unknown"
	}
}

// Fragment is a record, or a part of one, in a page.
type Fragment struct {
	Type  FragmentType
	Total uint32 // length of the whole record
	Data  []byte // within the page
}

func (f *Fragment) continues() bool { return f.Type >= FragmentMiddle }

func (f *Fragment) open() bool { return f.Type == FragmentFirst || f.Type == FragmentMiddle }

func putFragmentHeader(b []byte, t FragmentType, length, total int) {
	_ = b[FragmentHeader-1]
	binary.LittleEndian.PutUint64(b, uint64(length)|uint64(t)<<16|uint64(total)<<32)
}

// fragmentAt returns the fragment at an offset of a payload that was checked.
func fragmentAt(payload []byte, at int) Fragment {
	v := binary.LittleEndian.Uint64(payload[at:])
	at += FragmentHeader
	return Fragment{
		Type:  FragmentType(v >> 16),
		Total: uint32(v >> 32),
		Data:  payload[at : at+int(v&0xffff)],
	}
}

// decodeFragment checks the fragment at an offset of a payload as far as it can
// be checked without others.
func decodeFragment(payload []byte, at int) (Fragment, error) {
	if len(payload)-at < FragmentHeader {
		return Fragment{}, pageErrorf("fragment header at %d is cut off", at)
	}
	v := binary.LittleEndian.Uint64(payload[at:])
	length, total := int(v&0xffff), uint32(v>>32)
	switch {
	case length > len(payload)-at-FragmentHeader:
		return Fragment{}, pageErrorf("fragment at %d of %d bytes is cut off", at, length)
	case v>>24&0xff != 0:
		return Fragment{}, pageErrorf("reserved byte of the fragment at %d is not zero", at)
	case total > MaxRecord:
		return Fragment{}, pageErrorf("record at %d of %d bytes", at, total)
	}
	ok := false
	switch FragmentType(v >> 16) {
	case FragmentFull:
		ok = uint32(length) == total
	case FragmentFirst:
		ok = length > 0 && uint32(length) < total
	case FragmentMiddle:
		ok = length == PayloadSize-FragmentHeader && uint32(length) < total
	case FragmentLast:
		ok = length > 0 && uint32(length) < total
	}
	if !ok {
		return Fragment{}, pageErrorf("fragment at %d: type %d with %d of %d bytes", at, uint8(v>>16), length, total)
	}
	return fragmentAt(payload, at), nil
}

// All iterates over the page's fragments in order, each with the number of the
// record that it belongs to.
func (p *Page) All() iter.Seq2[uint64, Fragment] {
	return func(yield func(uint64, Fragment) bool) {
		n := p.First
		for at := 0; at < len(p.Payload); n++ {
			f := fragmentAt(p.Payload, at)
			if !yield(n, f) {
				return
			}
			at += FragmentHeader + len(f.Data)
		}
	}
}
