package history

import (
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/mpool-go/mpool/api"
)

// planted is a history: its calls come one after the other, unless they say when.
type planted struct {
	name  string
	of    func(calls []*call) machine
	right bool
	calls []call
}

// The numbers that planted calls give; mine and others' are of two processes.
const (
	mine, mine2 = 1<<40 | 1, 1<<40 | 2
	others      = 2<<40 | 1
)

func theObject([]*call) machine { return objectMachine() }
func theLog([]*call) machine    { return logMachine(1) }

// begun are the calls before others' on a committed object or an open log.
func after(first []call, more ...call) []call { return append(append([]call(nil), first...), more...) }

// committedObject is one on which the process mine has a handle.
func committedObject(more ...call) []call {
	return after([]call{
		{Do: doAlloc, Given: mine, Record: 7},
		{Do: doCommit, Handle: mine, Record: 7},
	}, more...)
}

// openedLog has two records that are not synced.
func openedLog(more ...call) []call {
	return after([]call{
		{Do: doOpen, Given: mine, Process: 1},
		{Do: doAppend, Handle: mine, Record: 100, Process: 1},
		{Do: doAppend, Handle: mine, Record: 101, N: 1, Process: 1},
		{Do: doReader, Given: others, Process: 2},
	}, more...)
}

func to(a, b, c uint64) []uint64 { return []uint64{a, b, c} }

func plantedObjects() []planted {
	find := call{Do: doFind, Given: others, Conn: 9}
	lostDelete := call{Do: doDelete, Handle: mine, Record: 7, Torn: true}
	gone := find
	gone.Code = api.ENOENT
	busy := call{Do: doDelete, Handle: mine, Record: 7, Code: api.EBUSY}
	return []planted{
		{"life", theObject, true, committedObject(find, busy,
			call{Do: doInfo, Handle: mine, Record: 7, N: 2<<8 | uint64(committed)},
			call{Do: doPut, Handle: others}, call{Do: doDelete, Handle: mine, Record: 7}, gone)},
		{"a delete with another's reference", theObject, false, committedObject(find, call{Do: doDelete, Handle: mine, Record: 7})},
		{"refused by nobody", theObject, false, committedObject(busy)},
		{"found after its delete", theObject, false, committedObject(call{Do: doDelete, Handle: mine, Record: 7}, find)},
		{"not found", theObject, false, committedObject(gone)},
		{"not found while it is deleted, in vain", theObject, false, committedObject(
			call{Do: doDelete, Handle: mine, Record: 7, Code: api.EBUSY, Begin: 1000, End: 2000},
			call{Do: doFind, Given: others, Conn: 9, Code: api.ENOENT, Begin: 1100, End: 1200})},
		{"not found while it is deleted", theObject, true, committedObject(
			call{Do: doDelete, Handle: mine, Record: 7, Begin: 1000, End: 2000},
			call{Do: doFind, Given: others, Conn: 9, Code: api.ENOENT, Begin: 1100, End: 1200},
			call{Do: doAlloc, Given: others, Code: api.EEXIST, Begin: 1300, End: 1400})},
		{"another's uncommitted object", theObject, false, []call{{Do: doAlloc, Given: mine, Record: 7}, find}},
		{"an id twice", theObject, false, committedObject(call{Do: doAlloc, Given: others, Record: 8})},
		{"a reference too many", theObject, false, committedObject(call{Do: doInfo, Handle: mine, Record: 7, N: 2<<8 | uint64(committed)})},
		{"lost by a kill", theObject, false, committedObject(call{Do: doKill}, gone)},
		{"a handle that outlives a kill", theObject, false, committedObject(call{Do: doKill}, call{Do: doInfo, Handle: mine, Record: 7, N: 1<<8 | uint64(committed)})},
		{"an uncommitted object that outlives a kill", theObject, false, []call{
			{Do: doAlloc, Given: mine, Record: 7}, {Do: doKill}, {Do: doAlloc, Given: others, Code: api.EEXIST},
		}},
		{"back after its delete", theObject, false, committedObject(call{Do: doDelete, Handle: mine, Record: 7}, call{Do: doKill}, find)},
		{"told undone and done", theObject, false, committedObject(
			call{Do: doDelete, Handle: mine, Record: 7, Code: api.ECONNRESET, Torn: true, Begin: 1000, End: 2000},
			call{Do: doKill, Begin: 1100, End: 1200}, call{Do: doFind, Code: api.ENOENT, Conn: 9, Begin: 1300, End: 1400})},
		{"cut off and done", theObject, true, committedObject(
			func() call { c := lostDelete; c.Begin, c.End = 1000, 2000; return c }(),
			call{Do: doKill, Begin: 1100, End: 1200}, call{Do: doFind, Code: api.ENOENT, Conn: 9, Begin: 1300, End: 1400})},
		{"told done while another's delete was under way, which a kill undid", theObject, false, committedObject(
			call{Do: doDelete, Handle: mine, Record: 7, Torn: true, Begin: 1000, End: 3000},
			call{Do: doKill, Begin: 1100, End: 1200},
			call{Do: doFind, Given: others, Conn: 9, Begin: 1300, End: 1400},
			call{Do: doDelete, Handle: others, Record: 7, Code: api.EUNKNOWN, Torn: true, Begin: 1500, End: 6000},
			call{Do: doKill, Begin: 3500, End: 3600},
			call{Do: doFind, Given: mine2, Conn: 9, Begin: 4000, End: 4100})},
		{"a commit seen, its answer taken by a kill, and deleted before it is looked for", theObject, true, []call{
			{Do: doAlloc, Given: mine, Record: 7},
			{Do: doCommit, Handle: mine, Record: 7, Code: api.ECONNRESET, Torn: true, Begin: 1000, End: 9000},
			{Do: doInfo, Handle: mine, Record: 7, N: 1<<8 | uint64(committed), Begin: 1100, End: 1200},
			{Do: doKill, Begin: 1300, End: 1400},
			{Do: doFind, Given: others, Conn: 9, Begin: 1500, End: 1600},
			{Do: doDelete, Handle: others, Record: 7, Begin: 1700, End: 1800},
		}},
	}
}

func plantedRoots() []planted {
	set := call{Do: doSet, Roots: to(5, unchanged, unchanged)}
	many := call{Do: doCommitMany, Batch: 1, Roots: to(unchanged, 6, unchanged), Begin: 1000, End: 2000}
	unclear := many
	unclear.Code, unclear.Torn = api.EUNKNOWN, true
	look := func(i uint64, code api.Code, at int64) call {
		return call{Do: doLook, Batch: 1, N: i, Code: code, Begin: at, End: at + 50}
	}
	return []planted{
		{"changes", rootsMachine, true, []call{
			{Do: doRoots, Roots: to(0, 0, 0)},
			set,
			{Do: doRoots, Roots: to(5, 0, 0)},
			{Do: doKill},
			{Do: doRoots, Roots: to(5, 0, 0)},
			{Do: doSet, Roots: to(0, unchanged, 7)},
			{Do: doRoots, Roots: to(0, 0, 7)},
			{Do: doSet, Roots: to(0, unchanged, unchanged), Code: api.ENOENT},
		}},
		{"an old root", rootsMachine, false, []call{set, {Do: doRoots, Roots: to(0, 0, 0)}}},
		{"half a change", rootsMachine, false, []call{{Do: doSet, Roots: to(5, 6, unchanged)}, {Do: doRoots, Roots: to(5, 0, 0)}}},
		{"a refused change", rootsMachine, false, []call{{Do: doSet, Roots: to(5, nobody, unchanged), Code: api.ENOENT}, {Do: doRoots, Roots: to(5, 0, 0)}}},
		{"seen and lost by a kill", rootsMachine, false, []call{
			{Do: doSet, Roots: to(5, unchanged, unchanged), Code: api.EUNKNOWN, Torn: true, Begin: 1000, End: 2000},
			{Do: doRoots, Roots: to(5, 0, 0), Begin: 1100, End: 1200},
			{Do: doKill, Begin: 1300, End: 1400},
			{Do: doRoots, Roots: to(0, 0, 0), Begin: 1500, End: 1600},
		}},
		{"a commit of many, seen one by one", rootsMachine, true, []call{
			many, look(0, 0, 1100), look(1, api.ENOENT, 1200),
			{Do: doRoots, Roots: to(0, 0, 0), Begin: 1300, End: 1400},
			look(0, 0, 1500), look(1, 0, 1600),
			{Do: doRoots, Roots: to(0, 6, 0)},
		}},
		{"a root before its object", rootsMachine, false, []call{many, {Do: doRoots, Roots: to(0, 6, 0), Begin: 1100, End: 1200}, look(1, api.ENOENT, 1300)}},
		{"half of many after a kill", rootsMachine, false, []call{
			unclear, {Do: doKill, Begin: 1100, End: 1200}, look(0, 0, 1300), look(1, api.ENOENT, 1400),
		}},
		{"many without their roots after a kill", rootsMachine, false, []call{
			unclear, look(0, 0, 1050), {Do: doKill, Begin: 1110, End: 1200}, {Do: doRoots, Roots: to(0, 0, 0), Begin: 1300, End: 1400},
		}},
		{"many that were seen and lost by a kill", rootsMachine, false, []call{
			unclear, look(0, 0, 1050), {Do: doKill, Begin: 1110, End: 1200}, look(0, api.ENOENT, 1300),
		}},
	}
}

func plantedLogs() []planted {
	next := func(n, record uint64) call {
		return call{Do: doNext, Handle: others, Process: 2, N: n, Record: record}
	}
	sync := call{Do: doSync, Handle: mine, Want: 2}
	closed := call{Do: doClose, Handle: mine}
	reopened := func(n uint64) call { return call{Do: doOpen, Given: mine2, Process: 1, N: n} }
	return []planted{
		{"life", theLog, true, openedLog(
			next(0, endOfLog), sync, next(0, 100), next(1, 101), next(2, endOfLog),
			call{Do: doErase, Code: api.EBUSY}, closed, call{Do: doUnreader, Handle: others},
			call{Do: doErase, Want: 5}, call{Do: doLogInfo, N: 5}, reopened(0))},
		{"busy with an open whose answer a kill took", theLog, true, []call{
			{Do: doOpen, Given: mine, Code: api.ECONNRESET, Torn: true, Process: 1, Begin: 1000, End: 2000},
			{Do: doOpen, Given: others, Code: api.EBUSY, Process: 2, Begin: 1100, End: 1200},
			{Do: doKill, Begin: 1300, End: 1400},
		}},
		{"busy with an open that a kill has ended", theLog, false, []call{
			{Do: doOpen, Given: mine, Code: api.ECONNRESET, Torn: true, Process: 1, Begin: 1000, End: 2000},
			{Do: doKill, Begin: 1100, End: 1200},
			{Do: doOpen, Given: others, Code: api.EBUSY, Process: 2, Begin: 1300, End: 1400},
		}},
		{"lost by a kill, unsynced", theLog, true, openedLog(call{Do: doKill}, reopened(1))},
		{"lost by a kill, synced", theLog, false, openedLog(sync, call{Do: doKill}, reopened(1))},
		{"lost by a kill, read by another process", theLog, false, openedLog(next(0, 100), next(1, 101), call{Do: doKill}, reopened(1))},
		{"lost by a kill, read by its own", theLog, true, openedLog(
			call{Do: doReader, Given: mine2, Process: 1}, call{Do: doNext, Handle: mine2, Process: 1, Record: 100}, call{Do: doKill}, reopened(0))},
		{"not seen by its own process", theLog, false, openedLog(
			call{Do: doReader, Given: mine2, Process: 1}, call{Do: doNext, Handle: mine2, Process: 1, Record: endOfLog})},
		{"a number twice", theLog, false, openedLog(call{Do: doAppend, Handle: mine, Record: 102, N: 1})},
		{"another record", theLog, false, openedLog(sync, next(0, 101))},
		{"synced and not seen", theLog, false, openedLog(sync, next(1, endOfLog))},
		{"two appenders", theLog, false, openedLog(call{Do: doOpen, Given: others, N: 2, Process: 2})},
		{"refused by nobody", theLog, false, openedLog(closed, call{Do: doOpen, Code: api.EBUSY})},
		{"erased while it is read", theLog, false, openedLog(closed, call{Do: doErase})},
		{"refused by another erasure", theLog, true, openedLog(closed, call{Do: doUnreader, Handle: others},
			call{Do: doErase, Begin: 1000, End: 2000}, call{Do: doErase, Worker: 1, Code: api.EBUSY, Begin: 1100, End: 1200})},
		{"refused by an erasure before", theLog, false, openedLog(closed, call{Do: doUnreader, Handle: others},
			call{Do: doErase}, call{Do: doErase, Code: api.EBUSY})},
		{"an old generation", theLog, false, openedLog(closed, call{Do: doUnreader, Handle: others}, call{Do: doErase}, call{Do: doLogInfo, N: 1})},
		{"erased and there", theLog, false, openedLog(closed, call{Do: doUnreader, Handle: others}, call{Do: doErase}, reopened(2))},
		{"an append of the dead", theLog, false, openedLog(call{Do: doKill}, call{Do: doAppend, Handle: mine, Record: 102, N: 2})},
	}
}

// The checker refuses wrong histories, and no right ones.
func TestPlanted(t *testing.T) {
	for what, list := range map[string][]planted{"objects": plantedObjects(), "roots": plantedRoots(), "logs": plantedLogs()} {
		for _, p := range list {
			var calls []*call
			for i := range p.calls {
				c := &p.calls[i]
				if c.End == 0 {
					c.Begin, c.End = int64(10*i), int64(10*i+5)
					if i > 0 && p.calls[i-1].End > c.Begin {
						c.Begin, c.End = 3000+c.Begin, 3000+c.End
					}
				}
				calls = append(calls, c)
			}
			want := porcupine.Illegal
			if p.right {
				want = porcupine.Ok
			}
			m := p.of(calls)
			if got := m.explained(calls); got != want {
				t.Errorf("%s: %s: %v; want %v", what, p.name, got, want)
			}
		}
	}
}
