package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// logSize is the size of a log file, in bytes: that of a memtable with Pebble's
// defaults would be smaller, and it would change files more often.
const logSize = 64 << 20

// logFiles is how many files there are to be used again.
const logFiles = 3

// pebbleLog is the writer of Pebble's write-ahead log alone, at its best: its
// files are used again, as Pebble does after some time, and written before it
// counts.
type pebbleLog struct {
	dir string

	mu   sync.Mutex // as in Pebble's commit pipeline: one puts a record at a time
	log  *record.LogWriter
	num  int
	size int64
	room chan struct{} // bounds the syncs under way
}

func newPebbleLog(dir string) (*pebbleLog, error) {
	p := &pebbleLog{dir: dir, num: logFiles, room: make(chan struct{}, record.SyncConcurrency)}
	zero := make([]byte, 1<<20)
	for i := range logFiles {
		f, err := os.Create(p.path(i))
		if err != nil {
			return nil, fmt.Errorf("make log file: %w", err)
		}
		for range logSize/len(zero) + 1 {
			if _, err := f.Write(zero); err != nil {
				return nil, fmt.Errorf("fill log file: %w", err)
			}
		}
		if err := f.Sync(); err != nil {
			return nil, fmt.Errorf("fill log file: %w", err)
		}
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("fill log file: %w", err)
		}
	}
	return p, p.openLocked()
}

func (p *pebbleLog) path(n int) string { return filepath.Join(p.dir, fmt.Sprintf("%06d.log", n)) }

// openLocked begins a new log in the oldest file.
func (p *pebbleLog) openLocked() error {
	f, err := vfs.Default.ReuseForWrite(p.path(p.num-logFiles), p.path(p.num), vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("reuse log file: %w", err)
	}
	file := vfs.NewSyncingFile(f, vfs.SyncingFileOptions{NoSyncOnClose: true})
	p.log = record.NewLogWriter(file, 1, record.LogWriterConfig{
		WALFsyncLatency:     prometheus.NewHistogram(prometheus.HistogramOpts{}),
		QueueSemChan:        p.room,
		WriteWALSyncOffsets: func() bool { return false },
	})
	p.num++
	p.size = 0
	return nil
}

func (p *pebbleLog) append(data []byte) error {
	var wg sync.WaitGroup
	var err error
	wg.Add(1)
	p.room <- struct{}{}
	p.mu.Lock()
	if p.size > logSize-int64(len(data))-1<<16 {
		if err := p.log.Close(); err != nil {
			p.mu.Unlock()
			return err
		}
		if err := p.openLocked(); err != nil {
			p.mu.Unlock()
			return err
		}
	}
	size, werr := p.log.SyncRecord(data, &wg, &err)
	p.size = size
	p.mu.Unlock()
	if werr != nil {
		return werr
	}
	wg.Wait()
	return err
}

func (p *pebbleLog) close() error { return p.log.Close() }

// pebbleDB is a Pebble database with its default options; what is appended is a
// value under a new key, committed with Sync.
type pebbleDB struct {
	db   *pebble.DB
	next atomic.Uint64
}

// silent drops what Pebble logs.
type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

func newPebbleDB(dir string) (*pebbleDB, error) {
	db, err := pebble.Open(filepath.Join(dir, "db"), &pebble.Options{Logger: silent{}})
	if err != nil {
		return nil, fmt.Errorf("open Pebble: %w", err)
	}
	return &pebbleDB{db: db}, nil
}

func (p *pebbleDB) append(data []byte) error {
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], p.next.Add(1))
	return p.db.Set(key[:], data, pebble.Sync)
}

func (p *pebbleDB) close() error { return p.db.Close() }
