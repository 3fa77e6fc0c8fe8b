package ioctl

import (
	"math/bits"
	"time"
)

// NumBuckets is how many buckets a latency histogram has. Bucket 0 counts what
// took less than 1 µs, bucket i what took less than 2^i µs and no less than
// half of that; the last one, everything longer than 2^26 µs (67 s).
const NumBuckets = 28

// Bucket returns the bucket that counts a latency.
func Bucket(d time.Duration) int {
	return min(bits.Len64(uint64(max(d, 0)/time.Microsecond)), NumBuckets-1)
}

// OpCounters counts one operation.
type OpCounters struct {
	Op      Op
	Count   uint64 // answered, errors included
	Errors  uint64
	Bytes   uint64             // of data, in or out
	Total   time.Duration      // of all latencies
	Buckets [NumBuckets]uint64 // see NumBuckets
}

// DriveCounters counts one drive's operations since it was opened.
type DriveCounters struct {
	Path                             string
	Reads, Writes, Flushes, Discards uint64
	ReadBytes, WriteBytes            uint64
	Errors, FlushFailures            uint64
}

// StatAsk asks for counters.
type StatAsk struct {
	Pool       string // "": those of the whole daemon
	FirstOp    uint16 // go on from this operation
	FirstDrive uint32 // and from this drive, by index
}

func (m *StatAsk) encode(w *writer) {
	b := w.block(8)
	le.PutUint16(b[0:], m.FirstOp)
	le.PutUint32(b[4:], m.FirstDrive)
	w.str(m.Pool, MaxName, "pool name")
}

func (m *StatAsk) decode(r *reader) {
	b := r.block(8)
	m.FirstOp = le.Uint16(b[0:])
	r.reserved(b[2:4])
	m.FirstDrive = le.Uint32(b[4:])
	m.Pool = r.str(MaxName)
}

// The most operations and drives that one StatReply has.
const (
	StatOpsPerPage    = 64
	StatDrivesPerPage = 64
)

const (
	statSize          = 48
	opCountersSize    = 40 + 8*NumBuckets
	driveCountersSize = 64
)

const _ = uint(MaxMessage - HeaderSize - statSize - 4 - StatOpsPerPage*opCountersSize -
	StatDrivesPerPage*(driveCountersSize+2+MaxPath))

// StatReply has counters. Those of operations come before those of drives.
type StatReply struct {
	Uptime    time.Duration // of the daemon
	Sessions  uint32        // open now; 0 in a pool's
	Handles   uint32        // held now; of the pool, or of all
	Reaped    uint64        // sessions ended so far; 0 in a pool's
	NextOp    uint16        // go on from here, or 0
	NextDrive uint32        // go on from here, or 0
	Arenas    uint64        // bytes shared with clients; 0 in a pool's
	Huge      uint64        // of these on huge pages
	Ops       []OpCounters  // only those that were ever asked for
	Drives    []DriveCounters
}

func (m *StatReply) encode(w *writer) {
	b := w.block(statSize)
	le.PutUint64(b[0:], uint64(m.Uptime))
	le.PutUint64(b[8:], m.Reaped)
	le.PutUint32(b[16:], m.Sessions)
	le.PutUint32(b[20:], m.Handles)
	le.PutUint32(b[24:], m.NextDrive)
	le.PutUint16(b[28:], m.NextOp)
	le.PutUint64(b[32:], m.Arenas)
	le.PutUint64(b[40:], m.Huge)
	w.count(len(m.Ops), StatOpsPerPage, "list of operations")
	for i := range m.Ops {
		putOpCounters(w.block(opCountersSize), &m.Ops[i])
	}
	w.count(len(m.Drives), StatDrivesPerPage, "list of drives")
	for i := range m.Drives {
		d := &m.Drives[i]
		b := w.block(driveCountersSize)
		for j, v := range [...]uint64{
			d.Reads, d.Writes, d.Flushes, d.Discards, d.ReadBytes, d.WriteBytes,
			d.Errors, d.FlushFailures,
		} {
			le.PutUint64(b[8*j:], v)
		}
		w.cut(d.Path, MaxPath)
	}
}

func (m *StatReply) decode(r *reader) {
	b := r.block(statSize)
	m.Uptime = time.Duration(le.Uint64(b[0:]))
	m.Reaped = le.Uint64(b[8:])
	m.Sessions = le.Uint32(b[16:])
	m.Handles = le.Uint32(b[20:])
	m.NextDrive = le.Uint32(b[24:])
	m.NextOp = le.Uint16(b[28:])
	r.reserved(b[30:32])
	m.Arenas = le.Uint64(b[32:])
	m.Huge = le.Uint64(b[40:])
	n := r.count(StatOpsPerPage, opCountersSize)
	if n > 0 {
		m.Ops = make([]OpCounters, n)
	}
	for i := range m.Ops {
		getOpCounters(r, r.block(opCountersSize), &m.Ops[i])
	}
	n = r.count(StatDrivesPerPage, driveCountersSize+2)
	if n > 0 {
		m.Drives = make([]DriveCounters, n)
	}
	for i := range m.Drives {
		d := &m.Drives[i]
		b := r.block(driveCountersSize)
		for j, v := range [...]*uint64{
			&d.Reads, &d.Writes, &d.Flushes, &d.Discards, &d.ReadBytes, &d.WriteBytes,
			&d.Errors, &d.FlushFailures,
		} {
			*v = le.Uint64(b[8*j:])
		}
		d.Path = r.str(MaxPath)
	}
}

func putOpCounters(b []byte, s *OpCounters) {
	le.PutUint16(b[0:], uint16(s.Op))
	le.PutUint64(b[8:], s.Count)
	le.PutUint64(b[16:], s.Errors)
	le.PutUint64(b[24:], s.Bytes)
	le.PutUint64(b[32:], uint64(s.Total))
	for i, n := range s.Buckets {
		le.PutUint64(b[40+8*i:], n)
	}
}

func getOpCounters(r *reader, b []byte, s *OpCounters) {
	s.Op = Op(le.Uint16(b[0:]))
	r.reserved(b[2:8])
	s.Count = le.Uint64(b[8:])
	s.Errors = le.Uint64(b[16:])
	s.Bytes = le.Uint64(b[24:])
	s.Total = time.Duration(le.Uint64(b[32:]))
	for i := range s.Buckets {
		s.Buckets[i] = le.Uint64(b[40+8*i:])
	}
}
