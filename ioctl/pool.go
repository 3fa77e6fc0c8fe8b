package ioctl

import (
	"github.com/mpool-go/mpool/api"
)

// PoolName is a request about a pool by its name. With OpPoolList it is the
// name after which to go on, or "".
type PoolName struct{ Name string }

func (m *PoolName) encode(w *writer) { w.str(m.Name, MaxName, "pool name") }
func (m *PoolName) decode(r *reader) { m.Name = r.str(MaxName) }

// PoolRename gives an active pool another name.
type PoolRename struct{ Name, NewName string }

func (m *PoolRename) encode(w *writer) {
	w.str(m.Name, MaxName, "pool name")
	w.str(m.NewName, MaxName, "pool name")
}

func (m *PoolRename) decode(r *reader) {
	m.Name = r.str(MaxName)
	m.NewName = r.str(MaxName)
}

// PoolCreate makes a pool. Options.Staging travels as the second list.
type PoolCreate struct {
	Name    string
	Devices []string
	Options api.CreateOptions
}

const (
	poolCreateSize = 24

	createForce      = 1 << 0
	createDryRun     = 1 << 1
	createNoActivate = 1 << 2
)

func (m *PoolCreate) encode(w *writer) {
	b := w.block(poolCreateSize)
	o := &m.Options
	le.PutUint64(b[0:], uint64(o.ZoneSize))
	le.PutUint32(b[8:], o.UID)
	le.PutUint32(b[12:], o.GID)
	le.PutUint32(b[16:], o.Mode)
	b[20] = bit(o.Force, createForce) | bit(o.DryRun, createDryRun) | bit(o.NoActivate, createNoActivate)
	w.str(m.Name, MaxName, "pool name")
	w.str(o.Label, MaxName, "label")
	w.paths(m.Devices)
	w.paths(o.Staging)
	if n := len(m.Devices) + len(o.Staging); n > MaxDevices {
		w.fail("list of devices", n, MaxDevices)
	}
}

func (m *PoolCreate) decode(r *reader) {
	b := r.block(poolCreateSize)
	o := &m.Options
	o.ZoneSize = int64(le.Uint64(b[0:]))
	o.UID = le.Uint32(b[8:])
	o.GID = le.Uint32(b[12:])
	o.Mode = le.Uint32(b[16:])
	r.bits(b[20], createForce|createDryRun|createNoActivate)
	o.Force = b[20]&createForce != 0
	o.DryRun = b[20]&createDryRun != 0
	o.NoActivate = b[20]&createNoActivate != 0
	r.reserved(b[21:24])
	m.Name = r.str(MaxName)
	o.Label = r.str(MaxName)
	m.Devices = r.paths()
	o.Staging = r.paths()
	if n := len(m.Devices) + len(o.Staging); n > MaxDevices {
		r.fail("%d devices, at most %d", n, MaxDevices)
	}
}

func (w *writer) paths(paths []string) {
	w.count(len(paths), MaxDevices, "list of devices")
	for _, p := range paths {
		w.str(p, MaxPath, "path")
	}
}

func (r *reader) paths() []string {
	n := r.count(MaxDevices, 2)
	var paths []string
	for range n {
		paths = append(paths, r.str(MaxPath))
	}
	return paths
}

// PoolCreateReply says what a created pool has.
type PoolCreateReply struct{ Result api.CreateResult }

func (m *PoolCreateReply) encode(w *writer) {
	b := w.block(24)
	le.PutUint64(b[0:], uint64(m.Result.ZoneSize))
	le.PutUint64(b[8:], uint64(m.Result.OverheadBytes))
	le.PutUint64(b[16:], uint64(m.Result.UsableBytes))
	w.str(m.Result.Name, MaxName, "pool name")
	w.str(m.Result.UUID, MaxName, "UUID")
	w.drives(m.Result.Drives)
}

func (m *PoolCreateReply) decode(r *reader) {
	b := r.block(24)
	m.Result.ZoneSize = int64(le.Uint64(b[0:]))
	m.Result.OverheadBytes = int64(le.Uint64(b[8:]))
	m.Result.UsableBytes = int64(le.Uint64(b[16:]))
	m.Result.Name = r.str(MaxName)
	m.Result.UUID = r.str(MaxName)
	m.Result.Drives = r.drives()
}

// DrivesPerPage is how many drives one message describes at most. With the
// longest strings they still fit, which is pinned here.
const DrivesPerPage = MaxDevices

const (
	driveSize = 24
	maxWord   = 24 // bytes of a drive's state and engine
	maxUUID   = 36
)

const _ = uint(MaxMessage - HeaderSize - poolInfoSize - 5*(2+MaxName) - 2 -
	DrivesPerPage*(driveSize+4*2+MaxPath+maxUUID+2*maxWord))

func (w *writer) drives(drives []api.DriveInfo) {
	w.count(len(drives), DrivesPerPage, "list of drives")
	for i := range drives {
		d := &drives[i]
		b := w.block(driveSize)
		le.PutUint16(b[0:], d.Slot)
		b[2] = uint8(d.Class)
		le.PutUint32(b[4:], uint32(d.SectorSize))
		le.PutUint64(b[8:], uint64(d.Size))
		le.PutUint64(b[16:], uint64(d.Free))
		w.cut(d.Path, MaxPath)
		w.cut(d.UUID, maxUUID)
		w.cut(d.State, maxWord)
		w.cut(d.Engine, maxWord)
	}
}

func (r *reader) drives() []api.DriveInfo {
	n := r.count(DrivesPerPage, driveSize+8)
	var drives []api.DriveInfo
	for range n {
		b := r.block(driveSize)
		d := api.DriveInfo{
			Slot: le.Uint16(b[0:]), Class: api.Class(b[2]),
			SectorSize: int(le.Uint32(b[4:])),
			Size:       int64(le.Uint64(b[8:])), Free: int64(le.Uint64(b[16:])),
		}
		r.reserved(b[3:4])
		d.Path = r.str(MaxPath)
		d.UUID = r.str(maxUUID)
		d.State = r.str(maxWord)
		d.Engine = r.str(maxWord)
		drives = append(drives, d)
	}
	return drives
}

// PoolActivate activates a pool.
type PoolActivate struct {
	Name    string // or UUID
	Devices []string
	Options api.ActivateOptions
}

const (
	activateForce  = 1 << 0
	activateResize = 1 << 1
)

func (m *PoolActivate) encode(w *writer) {
	b := w.block(8)
	b[0] = bit(m.Options.Force, activateForce) | bit(m.Options.Resize, activateResize)
	w.str(m.Name, MaxName, "pool name")
	w.paths(m.Devices)
}

func (m *PoolActivate) decode(r *reader) {
	b := r.block(8)
	r.bits(b[0], activateForce|activateResize)
	r.reserved(b[1:8])
	m.Options.Force = b[0]&activateForce != 0
	m.Options.Resize = b[0]&activateResize != 0
	m.Name = r.str(MaxName)
	m.Devices = r.paths()
}

// PoolListReply is a page of the names of active pools, sorted.
type PoolListReply struct {
	Names []string
	More  bool // ask again with the last name
}

// PoolsPerPage is how many names a page has at most.
const PoolsPerPage = 128

func (m *PoolListReply) encode(w *writer) {
	w.block(8)[0] = bit(m.More, 1)
	w.count(len(m.Names), PoolsPerPage, "list of pools")
	for _, n := range m.Names {
		w.str(n, MaxName, "pool name")
	}
}

func (m *PoolListReply) decode(r *reader) {
	b := r.block(8)
	r.bits(b[0], 1)
	r.reserved(b[1:8])
	m.More = b[0] != 0
	n := r.count(PoolsPerPage, 2)
	for range n {
		m.Names = append(m.Names, r.str(MaxName))
	}
}

// PoolShow asks for a pool's description, by handle or, if that is 0, by name.
type PoolShow struct {
	Pool       Handle
	FirstDrive uint32 // index of the first drive to describe
	Name       string
}

func (m *PoolShow) encode(w *writer) {
	b := w.block(16)
	le.PutUint64(b[0:], uint64(m.Pool))
	le.PutUint32(b[8:], m.FirstDrive)
	w.str(m.Name, MaxName, "pool name")
}

func (m *PoolShow) decode(r *reader) {
	b := r.block(16)
	m.Pool = Handle(le.Uint64(b[0:]))
	m.FirstDrive = le.Uint32(b[8:])
	r.reserved(b[12:16])
	m.Name = r.str(MaxName)
}

// PoolReply describes a pool and some of its drives.
type PoolReply struct {
	Info api.PoolInfo // Info.Drives: at most DrivesPerPage of them
	More bool         // there are more drives
}

const poolInfoSize = 128

const (
	poolVerify = 1 << 0
	poolMore   = 1 << 1
	poolShared = 1 << 2
)

func (m *PoolReply) encode(w *writer) {
	b := w.block(poolInfoSize)
	i := &m.Info
	putSpace(b[0:64], &i.Space)
	le.PutUint64(b[64:], uint64(i.ZoneSize))
	le.PutUint64(b[72:], uint64(i.Stored))
	le.PutUint64(b[80:], uint64(i.Mblocks))
	le.PutUint64(b[88:], uint64(i.Mlogs))
	le.PutUint64(b[96:], i.Epoch)
	le.PutUint32(b[104:], i.UID)
	le.PutUint32(b[108:], i.GID)
	le.PutUint32(b[112:], i.Mode)
	b[116] = i.Spare
	b[117] = bit(i.Verify, poolVerify) | bit(m.More, poolMore) | bit(i.Shared, poolShared)
	w.str(i.Name, MaxName, "pool name")
	w.str(i.UUID, MaxName, "UUID")
	w.str(i.Label, MaxName, "label")
	w.str(i.State, MaxName, "state")
	w.str(i.Health, MaxName, "health")
	w.drives(i.Drives)
}

func (m *PoolReply) decode(r *reader) {
	b := r.block(poolInfoSize)
	i := &m.Info
	getSpace(b[0:64], &i.Space)
	i.ZoneSize = int64(le.Uint64(b[64:]))
	i.Stored = int64(le.Uint64(b[72:]))
	i.Mblocks = int64(le.Uint64(b[80:]))
	i.Mlogs = int64(le.Uint64(b[88:]))
	i.Epoch = le.Uint64(b[96:])
	i.UID = le.Uint32(b[104:])
	i.GID = le.Uint32(b[108:])
	i.Mode = le.Uint32(b[112:])
	i.Spare = b[116]
	r.bits(b[117], poolVerify|poolMore|poolShared)
	i.Verify = b[117]&poolVerify != 0
	i.Shared = b[117]&poolShared != 0
	m.More = b[117]&poolMore != 0
	r.reserved(b[118:128])
	i.Name = r.str(MaxName)
	i.UUID = r.str(MaxName)
	i.Label = r.str(MaxName)
	i.State = r.str(MaxName)
	i.Health = r.str(MaxName)
	i.Drives = r.drives()
}

func putSpace(b []byte, s *api.Space) {
	for i, v := range [...]int64{
		s.Total, s.Free, s.Live, s.Uncommitted, s.Draining, s.Spare, s.Overhead, s.Remainder,
	} {
		le.PutUint64(b[8*i:], uint64(v))
	}
}

func getSpace(b []byte, s *api.Space) {
	for i, v := range [...]*int64{
		&s.Total, &s.Free, &s.Live, &s.Uncommitted, &s.Draining, &s.Spare, &s.Overhead, &s.Remainder,
	} {
		*v = int64(le.Uint64(b[8*i:]))
	}
}
