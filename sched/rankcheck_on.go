//go:build invariants

package sched

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
)

// held maps a goroutine's number to the ranks of the mutexes it holds, in the
// order it took them. Only builds with the tag invariants pay for it.
var held sync.Map // uint64 -> *[]Rank, touched by its goroutine only

func goroutineID() uint64 {
	var buf [64]byte
	b := buf[:runtime.Stack(buf[:], false)]
	b = bytes.TrimPrefix(b, []byte("goroutine "))
	if i := bytes.IndexByte(b, ' '); i > 0 {
		b = b[:i]
	}
	id, err := strconv.ParseUint(string(b), 10, 64)
	if err != nil {
		panic("sched: no goroutine number in a stack trace: " + err.Error())
	}
	return id
}

func assertRankBeforeLock(m *Mutex) {
	if m.rank == 0 {
		return
	}
	id := goroutineID()
	v, _ := held.LoadOrStore(id, new([]Rank))
	ranks := v.(*[]Rank)
	for _, r := range *ranks {
		if r >= m.rank {
			panic(fmt.Sprintf("sched: lock of rank %v taken while holding rank %v", m.rank, r))
		}
	}
	*ranks = append(*ranks, m.rank)
}

func forgetRankAfterUnlock(m *Mutex) {
	if m.rank == 0 {
		return
	}
	id := goroutineID()
	v, ok := held.Load(id)
	if !ok {
		return
	}
	ranks := v.(*[]Rank)
	for i := range slices.Backward(*ranks) {
		if (*ranks)[i] == m.rank {
			*ranks = append((*ranks)[:i], (*ranks)[i+1:]...)
			break
		}
	}
	if len(*ranks) == 0 {
		held.Delete(id)
	}
}
