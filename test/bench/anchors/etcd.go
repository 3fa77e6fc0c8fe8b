package main

import (
	"path/filepath"
	"sync"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// etcd is etcd's write-ahead log. Save makes a list of entries durable; the
// grouping of those who append at the same time is what raft does above it:
// whoever finds no Save under way saves everything that has come until then.
type etcd struct {
	log *wal.WAL

	mu     sync.Mutex
	saved  sync.Cond // a Save has ended
	next   []raftpb.Entry
	index  uint64 // of the last entry that has come
	done   uint64 // of the last durable one
	saving bool
	err    error
}

func newEtcd(dir string) (*etcd, error) {
	log, err := wal.Create(zap.NewNop(), filepath.Join(dir, "wal"), nil)
	if err != nil {
		return nil, err
	}
	e := &etcd{log: log}
	e.saved.L = &e.mu
	return e, nil
}

func (e *etcd) append(record []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.index++
	own := e.index
	e.next = append(e.next, raftpb.Entry{Term: 1, Index: own, Data: record})
	for e.done < own && e.err == nil {
		if e.saving {
			e.saved.Wait()
			continue
		}
		e.saving = true
		entries := e.next
		e.next = nil
		e.mu.Unlock()
		last := entries[len(entries)-1].Index
		err := e.log.Save(raftpb.HardState{Term: 1, Vote: 1, Commit: last}, entries)
		e.mu.Lock()
		e.saving, e.done, e.err = false, last, err
		e.saved.Broadcast()
	}
	return e.err
}

func (e *etcd) close() error { return e.log.Close() }
