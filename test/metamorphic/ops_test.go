package metamorphic

import (
	"fmt"
	"math/rand/v2"
)

// op is an operation. What its numbers mean depends on it; a slot is one of a few places
// for handles.
type op struct {
	do   string
	slot int
	n    int
	off  int
}

func (o op) String() string { return fmt.Sprintf("{%q, %d, %d, %d}", o.do, o.slot, o.n, o.off) }

// How many handles of a kind there are at most.
const (
	blockSlots     = 6
	logSlots       = 3
	containerSlots = 2
)

// The operations, each with how often it is drawn.
var menu = []struct {
	do     string
	weight int
	slots  int
}{
	{"alloc", 10, blockSlots},
	{"put mblock", 5, blockSlots},
	{"write", 22, blockSlots},
	{"commit", 10, blockSlots},
	{"abort", 3, blockSlots},
	{"read", 24, blockSlots},
	{"read all", 4, blockSlots},
	{"info", 5, blockSlots},
	{"put", 4, blockSlots},
	{"find", 8, blockSlots},
	{"get", 2, blockSlots},
	{"delete", 5, blockSlots},
	{"again", 2, blockSlots},
	{"commit many", 4, 1 << blockSlots},
	{"roots", 3, 1},
	{"set roots", 5, 4},
	{"objects", 3, 1},
	{"owner", 2, 3},
	{"log", 5, logSlots},
	{"log find", 4, logSlots},
	{"open", 7, logSlots},
	{"append", 24, logSlots},
	{"sync", 4, logSlots},
	{"close", 3, logSlots},
	{"reader", 4, logSlots},
	{"next", 18, logSlots},
	{"seek", 4, logSlots},
	{"rewind", 2, logSlots},
	{"unreader", 2, logSlots},
	{"erase", 3, logSlots},
	{"log info", 3, logSlots},
	{"log delete", 2, logSlots},
	{"container", 3, containerSlots},
	{"container append", 8, containerSlots},
	{"container compact", 3, containerSlots},
	{"container read", 4, containerSlots},
	{"container close", 2, containerSlots},
	{"container delete", 1, containerSlots},
	{"reopen", 2, 1},
	{"restart", 1, 1},
	{"grow", 1, 1},
}

// sizes are near what matters: blocks, the bytes that lie in a record, zones, the pieces
// that a ring or a message takes.
var sizes = []int{0, 1, 511, 512, 4095, 4096, 4097, 8192, 12288, 16 * 4096, 16*4096 + 1, 65536, 65535, 131072, 200_000, 262_144, 262_145, 1 << 20, 1<<20 + 4096}

// draw makes a list of n operations.
func draw(seed uint64, n int) []op {
	rng := rand.New(rand.NewPCG(seed, 3))
	total := 0
	for _, m := range menu {
		total += m.weight
	}
	list := make([]op, 0, n)
	for len(list) < n {
		at := rng.IntN(total)
		i := 0
		for ; at >= menu[i].weight; i++ {
			at -= menu[i].weight
		}
		m := menu[i]
		size := sizes[rng.IntN(len(sizes))]
		switch rng.IntN(4) {
		case 0:
			size = rng.IntN(300_000)
		case 1:
			size &^= 4095
		}
		list = append(list, op{do: m.do, slot: rng.IntN(m.slots), n: size, off: rng.IntN(1 << (1 + rng.IntN(20)))})
	}
	return list
}
