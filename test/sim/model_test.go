package sim

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"unsafe"

	"github.com/mpool-go/mpool/layout"
)

// fate is what the model knows of a change: whether it was acknowledged.
type fate uint8

const (
	dead     fate = iota // not there: never committed, or deleted and acknowledged
	live                 // committed and acknowledged
	creating             // commit sent, not answered: there or not
	removing             // delete sent, not answered: there or not
)

// mblockModel is what the model knows of an mblock.
type mblockModel struct {
	fate fate
	data []byte
	tag  uint64
	with *group // the commit it belongs to, while it is not answered
}

// group is a commit of several objects and roots, all or nothing.
type group struct {
	objects []layout.ObjectID
	root    string
	id      layout.ObjectID
}

// logModel is what the model knows of an mlog.
type logModel struct {
	fate       fate
	generation uint64
	records    map[uint64]string // by number, as Append answered
	inflight   map[string]bool   // appends not answered
	synced     uint64            // records below are durable
	erasing    bool              // an erase was sent and not answered
	unclean    bool              // it was closed with an error: its end is unknown
}

// containerModel is what the model knows of an MDC: a map changed one key at a
// time, as many applications would use one.
type containerModel struct {
	fate    fate
	history []change // change i brought version i+1
	synced  uint64   // versions up to it are durable
	unclean bool     // it was closed with an error: its version is unknown
}

type change struct {
	key   uint8
	value uint64
}

// state returns the map at a version.
func (c *containerModel) state(version uint64) map[uint8]uint64 {
	m := make(map[uint8]uint64)
	for _, ch := range c.history[:version] {
		m[ch.key] = ch.value
	}
	return m
}

// encodeChange makes a record of a container.
func encodeChange(version uint64, ch change) []byte {
	b := make([]byte, 17)
	binary.LittleEndian.PutUint64(b, version)
	b[8] = ch.key
	binary.LittleEndian.PutUint64(b[9:], ch.value)
	return b
}

// model is what must be true of the pool after any crash.
type model struct {
	mblocks    map[layout.ObjectID]*mblockModel
	logs       map[layout.ObjectID]*logModel
	containers map[layout.ObjectID]*containerModel
	roots      map[string]layout.ObjectID   // as acknowledged
	rootMaybe  map[string][]layout.ObjectID // values sent and not answered
	used       map[layout.ObjectID]bool     // ids that were given
	name       string
	acks       int // acknowledged changes
}

func newModel() *model {
	return &model{
		mblocks: make(map[layout.ObjectID]*mblockModel), logs: make(map[layout.ObjectID]*logModel),
		containers: make(map[layout.ObjectID]*containerModel), roots: make(map[string]layout.ObjectID),
		rootMaybe: make(map[string][]layout.ObjectID), used: make(map[layout.ObjectID]bool), name: "p",
	}
}

// given notes an id. It must be new.
func (m *model) given(id layout.ObjectID) error {
	if m.used[id] {
		return fmt.Errorf("id %v was given twice (S10)", id)
	}
	m.used[id] = true
	return nil
}

// memory returns n bytes at an address that is a multiple of 4096: whether a
// write goes to the device as it is or through a copy must follow from the seed,
// not from where the allocator puts it.
func memory(n int) []byte {
	const align = layout.BlockSize
	b := make([]byte, n+align)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (align - 1)
	return b[skip : skip+n : skip+n]
}

// pattern fills n bytes that nothing else has.
func pattern(rng *rand.Rand, n int) []byte {
	b := memory(n)
	for i := 0; i < n; i += 8 {
		var w [8]byte
		binary.LittleEndian.PutUint64(w[:], rng.Uint64())
		copy(b[i:], w[:])
	}
	return b
}
