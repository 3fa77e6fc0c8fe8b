package powercut

import (
	"encoding/binary"
	"math/rand/v2"
)

// content stands for n bytes that nothing else has.
type content struct {
	seed uint64
	n    int
}

func (c content) bytes() []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], c.seed)
	b := make([]byte, c.n)
	_, _ = rand.NewChaCha8(key).Read(b) // it never fails
	return b
}

// change is one change of a container's map.
type change struct {
	key   uint8
	value uint64
}

const (
	changeKeys  = 8
	changeBytes = 64
)

// record is a change as it stands in the container, with the version that it
// made.
func (c change) record(version int) []byte {
	b := make([]byte, changeBytes)
	binary.LittleEndian.PutUint64(b, uint64(version))
	b[8] = c.key
	binary.LittleEndian.PutUint64(b[9:], c.value)
	return b
}

func decodeChange(b []byte) (version int, c change) {
	return int(binary.LittleEndian.Uint64(b)), change{key: b[8], value: binary.LittleEndian.Uint64(b[9:])}
}
