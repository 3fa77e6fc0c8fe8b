package layout

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mpool-go/mpool/sched"
)

func check(t interface{ Fatalf(string, ...any) }, ok bool, format string, args ...any) {
	if !ok {
		t.Fatalf(format, args...)
	}
}

// genObject draws objects that are often at the borders of an entry's fields.
func genObject(ids int) *rapid.Generator[Object] {
	return rapid.Custom(func(t *rapid.T) Object {
		field := func(name string, bits uint) uint64 {
			return rapid.OneOf(
				rapid.Uint64Range(0, 1<<bits-1),
				rapid.SampledFrom([]uint64{0, 1, 1<<bits - 1, 1 << bits, math.MaxUint64}),
			).Draw(t, name)
		}
		o := Object{
			ID:    genID(ids).Draw(t, "id"),
			Birth: BirthStamp(field("birth", birthBits)),
			Extent: Extent{
				Drive:  uint16(field("drive", driveBits)),
				Start:  field("start", startBits),
				Blocks: uint32(field("blocks", blocksBits)),
			},
			Written:  field("written", lengthBits) & math.MaxInt32,
			Capacity: field("capacity", lengthBits),
			Owner:    uint32(field("owner", ownerBits)),
			Tag:      rapid.Uint64().Draw(t, "tag"),
			Created:  field("created", createdBits),
		}
		if rapid.Bool().Draw(t, "log") {
			o.Generation = field("generation", 32)
			if rapid.Bool().Draw(t, "mdc") {
				o.Partner = ObjectID(rapid.Uint64().Draw(t, "partner"))
			}
		}
		if n := rapid.IntRange(0, MaxInlineSums).Draw(t, "sums"); n > 0 {
			o.Sums = rapid.SliceOfN(rapid.Uint32(), n, n).Draw(t, "values")
		}
		return o
	})
}

// genID draws from a small set of ids, so that calls meet, some of them odd.
func genID(ids int) *rapid.Generator[ObjectID] {
	return rapid.Custom(func(t *rapid.T) ObjectID {
		c := uint64(rapid.IntRange(0, ids).Draw(t, "counter"))
		switch rapid.IntRange(0, 9).Draw(t, "sort") {
		case 0:
			return NewObjectID(KindMlog, 1<<counterBits-1+c)
		case 1:
			return ObjectID(c) // of no kind; 0 is no object at all
		case 2, 3, 4:
			return NewObjectID(KindMlog, c)
		default:
			return NewObjectID(KindMblock, c)
		}
	})
}

type model map[ObjectID]Object

func (m model) stored() (n int64) {
	for _, o := range m {
		n += int64(o.Written)
	}
	return n
}

func (m model) count(k Kind) (n int) {
	for id := range m {
		if id.Kind() == k {
			n++
		}
	}
	return n
}

func TestTableAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := NewTable(nil)
		m := model{}
		ids := rapid.SampledFrom([]int{4, 100, 5000}).Draw(t, "ids")
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				o := genObject(ids).Draw(t, "object")
				_, had := m[o.ID]
				check(t, tab.Insert(o) == !had, "insert %v: had is %v", o.ID, had)
				if !had {
					m[o.ID] = o
				}
			},
			"upsert": func(t *rapid.T) {
				o := genObject(ids).Draw(t, "object")
				tab.Upsert(o)
				m[o.ID] = o
			},
			"upsert all": func(t *rapid.T) {
				objects := rapid.SliceOfN(genObject(ids), 0, 100).Draw(t, "objects")
				tab.UpsertAll(objects)
				for _, o := range objects {
					m[o.ID] = o
				}
			},
			"many": func(t *rapid.T) {
				from := rapid.IntRange(1, 1000).Draw(t, "from")
				for i := range 200 {
					o := Object{ID: NewObjectID(KindMblock, uint64(from+i)), Birth: BirthStamp(i), Written: 5, Sums: []uint32{uint32(i)}}
					tab.Upsert(o)
					m[o.ID] = o
				}
			},
			"update": func(t *rapid.T) {
				o := genObject(ids).Draw(t, "object")
				_, had := m[o.ID]
				found := tab.Update(o.ID, func(p *Object) {
					check(t, cmp.Equal(*p, m[o.ID]), "update %v saw %v", o.ID, cmp.Diff(m[o.ID], *p))
					*p = o
				})
				check(t, found == had, "update %v: had is %v", o.ID, had)
				if had {
					m[o.ID] = o
				}
			},
			"delete": func(t *rapid.T) {
				id := genID(ids).Draw(t, "id")
				want, had := m[id]
				got, ok := tab.Delete(id)
				check(t, ok == had && cmp.Equal(want, got), "delete %v: %v, %s", id, ok, cmp.Diff(want, got))
				delete(m, id)
			},
			"reserve": func(t *rapid.T) { tab.Reserve(rapid.IntRange(-1, 3000).Draw(t, "n")) },
			"": func(t *rapid.T) {
				check(t, tab.Len() == len(m), "%d objects, want %d", tab.Len(), len(m))
				check(t, tab.Stored() == m.stored(), "stored %d, want %d", tab.Stored(), m.stored())
				for k := range Kind(4) {
					want := m.count(k)
					if !k.Valid() {
						want = 0
					}
					check(t, tab.Count(k) == want, "%d of %v, want %d", tab.Count(k), k, want)
				}
				id := genID(ids).Draw(t, "looked up")
				want, had := m[id]
				got, ok := tab.Lookup(id)
				check(t, ok == had && cmp.Equal(want, got), "lookup %v: %v, %s", id, ok, cmp.Diff(want, got))
			},
		})
		seen := model{}
		for cursor, first := uint64(0), true; first || cursor != 0; first = false {
			cursor = tab.Scan(cursor, rapid.IntRange(1, 100).Draw(t, "limit"), func(o Object) {
				_, twice := seen[o.ID]
				check(t, !twice, "scan visited %v twice", o.ID)
				seen[o.ID] = o
			})
		}
		check(t, cmp.Equal(m, seen), "scan: %s", cmp.Diff(m, seen))
	})
}

func TestTableTagsShrinkAsSlotsGrow(t *testing.T) {
	tab := NewTable(nil)
	const n = 70_000 // slots of 11 to 17 bits
	for i := range uint64(n) {
		tab.Insert(Object{ID: NewObjectID(KindMlog, i+1), Tag: i, Generation: i})
	}
	for i := range uint64(n) {
		o, ok := tab.Lookup(NewObjectID(KindMlog, i+1))
		check(t, ok && o.Tag == i && o.Generation == i, "object %d: %v %+v", i, ok, o)
		_, ok = tab.Lookup(NewObjectID(KindMblock, i+1))
		check(t, !ok, "object %d of the other kind is there", i)
	}
	for i := range uint64(n) {
		if i%3 != 0 {
			tab.Delete(NewObjectID(KindMlog, i+1))
		}
	}
	for i := range uint64(n) {
		_, ok := tab.Lookup(NewObjectID(KindMlog, i+1))
		check(t, ok == (i%3 == 0), "object %d after deletes: %v", i, ok)
	}
}

func TestTableMemoryIsUsedAgain(t *testing.T) {
	tab := NewTable(nil)
	fill := func(base uint64) {
		for i := range uint64(3000) {
			o := Object{ID: NewObjectID(KindMblock, base+i), Sums: make([]uint32, i%17)}
			if i%5 == 0 {
				o.Tag, o.Capacity = i, 1<<40
			}
			tab.Insert(o)
		}
	}
	was := tab.Growths()
	fill(1)
	check(t, tab.Growths() > was, "it grew, and Growths says %d", was)
	entries, sums := tab.Bytes()
	for round := range uint64(40) {
		for i := range uint64(3000) {
			_, ok := tab.Delete(NewObjectID(KindMblock, round*3000+1+i))
			check(t, ok, "round %d: %d is not there", round, i)
		}
		check(t, tab.Len() == 0 && tab.Stored() == 0, "round %d: not empty", round)
		was, bytes := tab.Growths(), total(tab)
		fill((round+1)*3000 + 1)
		check(t, total(tab) == bytes || tab.Growths() > was, "round %d: from %d to %d bytes, and Growths says %d", round, bytes, total(tab), was)
	}
	e, s := tab.Bytes()
	check(t, s == sums, "arena grew from %d to %d", sums, s)
	check(t, e < entries*5/4, "table grew from %d to %d", entries, e)
}

func total(tab *Table) int64 {
	table, sums := tab.Bytes()
	return table + sums
}

// Growths changes whenever Bytes does, whatever makes it grow.
func TestTableGrowths(t *testing.T) {
	for name, o := range map[string]Object{
		"narrow": {Sums: make([]uint32, 1)}, "sums": {Sums: make([]uint32, 16)}, "wide": {Capacity: 1 << 50},
	} {
		tab := NewTable(nil)
		was, bytes, grew := tab.Growths(), total(tab), 0
		for i := range uint64(6000) {
			o.ID = NewObjectID(KindMblock, i+1)
			tab.Insert(o)
			n, b := tab.Growths(), total(tab)
			check(t, n != was || b == bytes, "%s: object %d: from %d to %d bytes, and Growths stays %d", name, i, bytes, b, n)
			if n != was {
				grew++
			}
			was, bytes = n, b
		}
		check(t, grew > 0 && grew < 3000, "%s: it grew %d times", name, grew)
	}
}

func TestTableScanWhileItChanges(t *testing.T) {
	const n = 20_000
	rng := rand.New(rand.NewPCG(1, 2))
	tab := NewTable(nil)
	id := func(i uint64) ObjectID { return NewObjectID(KindMblock, i+1) }
	for i := range uint64(n) {
		tab.Insert(Object{ID: id(i)})
	}
	seen := map[ObjectID]int{}
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		cursor = tab.Scan(cursor, 1+rng.IntN(200), func(o Object) {
			seen[o.ID]++
			i := rng.Uint64N(n)
			switch {
			case i%2 == 0: // these stay, whatever else happens to them
				tab.Update(id(i), func(o *Object) { o.Owner++; o.Tag = i; o.Capacity ^= 1 << 50 })
			case rng.IntN(2) == 0:
				tab.Delete(id(i))
			default:
				tab.Upsert(Object{ID: id(i)})
			}
		})
	}
	for i := uint64(0); i < n; i += 2 {
		check(t, seen[id(i)] == 1, "object %d was visited %d times", i, seen[id(i)])
	}
}

func TestTableIsDeterministic(t *testing.T) {
	run := func() (order []ObjectID, table, sums int64) {
		s := sched.New(7)
		tab := NewTable(s)
		err := s.Run(func() {
			for w := range uint64(3) {
				s.Go("writer", func() {
					for i := range uint64(500) {
						tab.Upsert(Object{ID: NewObjectID(KindMblock, (i*(w+3))%700+1), Sums: make([]uint32, i%5)})
						if i%4 == w {
							tab.Delete(NewObjectID(KindMblock, i+1))
						}
					}
				})
			}
		})
		check(t, err == nil, "run: %v", err)
		_ = s.Run(func() {
			tab.Scan(0, math.MaxInt, func(o Object) { order = append(order, o.ID) })
			table, sums = tab.Bytes()
		})
		return order, table, sums
	}
	o1, t1, s1 := run()
	o2, t2, s2 := run()
	check(t, len(o1) > 100 && cmp.Equal(o1, o2), "two runs differ: %s", cmp.Diff(o1, o2))
	check(t, t1 == t2 && s1 == s2, "bytes %d %d, then %d %d", t1, s1, t2, s2)
}

func TestTableConcurrently(t *testing.T) {
	tab := NewTable(nil)
	done := make(chan struct{})
	for w := range uint64(4) {
		go func() {
			for i := range uint64(4000) {
				id := NewObjectID(KindMblock, i*4+w+1)
				tab.Insert(Object{ID: id, Written: i, Sums: []uint32{uint32(i)}})
				if o, ok := tab.Lookup(id); !ok || o.Written != i || o.Sums[0] != uint32(i) {
					t.Errorf("object %v: %v %+v", id, ok, o)
				}
				if i%2 == 0 {
					tab.Delete(id)
				}
			}
			done <- struct{}{}
		}()
	}
	for range 4 {
		<-done
	}
	check(t, tab.Len() == 8000, "%d objects", tab.Len())
}

func TestTableLookupAllocatesNothing(t *testing.T) {
	tab := NewTable(nil)
	for i := range uint64(1000) {
		tab.Insert(Object{ID: NewObjectID(KindMblock, i+1), Written: 1, Sums: []uint32{uint32(i)}})
	}
	var sum uint64
	n := testing.AllocsPerRun(1000, func() {
		if o, ok := tab.Lookup(NewObjectID(KindMblock, 77)); ok {
			sum += uint64(o.Sums[0])
		}
	})
	lock := testing.AllocsPerRun(1000, func() { tab.Len() }) // debug builds allocate there
	check(t, n == lock, "%v allocations a lookup", n-lock)
	check(t, sum%76 == 0 && sum > 0, "sum %d", sum)
}

func TestTableRefusesTooManySums(t *testing.T) {
	defer func() { check(t, recover() != nil, "17 checksums were taken") }()
	NewTable(nil).Insert(Object{ID: NewObjectID(KindMblock, 1), Sums: make([]uint32, 17)})
}
