package powercut

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// fate is what a client knows of an object.
type fate uint8

const (
	live     fate = iota // its commit was acknowledged
	creating             // its commit is of unknown outcome
	removing             // its delete is
)

// block is an mblock.
type block struct {
	fate fate
	data content
	with *group // the commit of many that it belongs to, while that is unknown
}

// group is a commit of many of unknown outcome.
type group struct{ ids []layout.ObjectID }

// journal is an mlog.
type journal struct {
	fate       fate
	with       *group
	generation uint64
	erasing    bool      // an erase is of unknown outcome
	sent       []content // records, by number
	acked      int       // so many are durable
	unsure     bool      // an append or a sync failed: it is not used before the next look
}

// box is a metadata container that holds a map.
type box struct {
	fate    fate
	history []change // change i made version i+1
	synced  int      // versions up to it are durable
	unsure  bool
}

// state is the map at a version.
func (b *box) state(version int) map[uint8]uint64 {
	m := make(map[uint8]uint64)
	for _, c := range b.history[:version] {
		m[c.key] = c.value
	}
	return m
}

// ledger is what one worker of a client has asked for and what it was told. Its
// objects have its tag. It is used by one goroutine at a time.
type ledger struct {
	tag  uint64
	rng  *rand.Rand
	seed uint64 // of the next content

	blocks    map[layout.ObjectID]*block
	journals  map[layout.ObjectID]*journal
	boxes     map[layout.ObjectID]*box
	strays    []content // puts of unknown outcome, whose ids are not known
	strayBox  int       // creations of containers of unknown outcome
	root      layout.ObjectID
	rootMaybe []layout.ObjectID // values of unknown outcome

	acked int // changes that were acknowledged
}

func newLedger(tag uint64) *ledger {
	return &ledger{
		tag: tag, rng: rand.New(rand.NewPCG(tag, 1)), seed: tag << 32,
		blocks:   make(map[layout.ObjectID]*block),
		journals: make(map[layout.ObjectID]*journal),
		boxes:    make(map[layout.ObjectID]*box),
	}
}

// content returns new content.
func (l *ledger) content(n int) content {
	l.seed++
	return content{l.seed, n}
}

func (l *ledger) rootName() string { return fmt.Sprintf("root-%d", l.tag) }

// setRoot notes what became of a change of the root.
func (l *ledger) setRoot(id layout.ObjectID, err error) {
	switch {
	case err == nil:
		l.root, l.rootMaybe = id, nil
	case unknown(err):
		l.rootMaybe = append(l.rootMaybe, id)
	}
}

// unknown says whether an error leaves open what happened. All others say that
// nothing did.
func unknown(err error) bool { return errors.Is(err, api.EUNKNOWN) }

// pick returns one of a map's objects that are certain, by chance.
func pick[T any](rng *rand.Rand, m map[layout.ObjectID]T, ok func(T) bool) layout.ObjectID {
	var ids []layout.ObjectID
	for id, o := range m { // order matters to the dice only
		if ok(o) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return 0
	}
	return ids[rng.IntN(len(ids))]
}
