package mpool

import (
	"math/bits"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/omf"
)

// Bounds of a pool's geometry, in bytes.
const (
	minZone      = 64 << 10
	maxZone      = 64 << 20
	bigZoneAbove = 64 << 30 // drives above this get zones of 1 MiB by default
	minMetaLog   = 1 << 20
	minZones     = 128 // of a drive: bounds what a zone at each end costs to under 2 %
	metaPerZone  = 512 // bytes of each metadata log per zone: three times the largest create record
)

// geometry is how a drive is divided.
type geometry struct {
	size     int64  // bytes in use, a multiple of 4096
	zone     int64  // bytes
	head     uint32 // zones at the beginning that are overhead
	zones    uint32 // zones in all, the head included
	logs     [2]omf.LogPlace
	overhead int64 // bytes of the head
	rest     int64 // bytes at the end that are no whole zone, with the last superblock copy
}

// defaultZone returns the zone size for a drive of that many bytes.
func defaultZone(size int64) int64 {
	if size > bigZoneAbove {
		return 1 << 20
	}
	return minZone
}

// divide plans a drive. metaBytes is the size of each metadata log: 0 by the
// formula, negative for a drive without logs.
func divide(size, zone, metaBytes int64) (geometry, error) {
	const op = "pool create"
	size &^= layout.BlockSize - 1
	g := geometry{size: size, zone: zone}
	if zone < minZone || zone > maxZone || bits.OnesCount64(uint64(zone)) != 1 {
		return g, api.Errorf(api.EINVAL, op, "zone size %d: want a power of two from 64 KiB to 64 MiB", zone)
	}
	if size/zone < minZones {
		return g, api.Errorf(api.EINVAL, op,
			"a drive of %d bytes has fewer than %d zones of %d bytes; take a larger drive or smaller zones", size, minZones, zone)
	}
	g.zones = uint32(min((size-omf.SuperblockSize)/zone, 1<<31))
	head := int64(omf.SecondCopyOffset + omf.SuperblockSize)
	if metaBytes >= 0 {
		if metaBytes == 0 {
			metaBytes = max(int64(g.zones)*metaPerZone, minMetaLog)
		}
		blocks := uint32((metaBytes + layout.BlockSize - 1) / layout.BlockSize)
		for i := range g.logs {
			g.logs[i] = omf.LogPlace{Birth: layout.BirthStamp(i + 1), Start: uint64(head / layout.BlockSize), Blocks: blocks}
			head += int64(blocks) * layout.BlockSize
		}
	}
	g.head = uint32((head + zone - 1) / zone)
	g.overhead = int64(g.head) * zone
	g.rest = size - int64(g.zones)*zone
	if g.head >= g.zones {
		return g, api.Errorf(api.ENOSPC, op, "a drive of %d bytes has no room for data behind the metadata", size)
	}
	return g, nil
}

// geometryOf divides a drive as its superblock says it was divided.
func geometryOf(sb *omf.Superblock, d omf.Drive) geometry {
	zone := int64(1) << d.ZoneLog2
	g := geometry{size: d.Size, zone: zone, zones: uint32(min(d.EndCopy/zone, 1<<31))}
	head := uint64(omf.SecondCopyOffset + omf.SuperblockSize)
	if d.Slot == sb.MetaSlot {
		g.logs = sb.Logs
		for _, l := range sb.Logs {
			head = max(head, (l.Start+uint64(l.Blocks))*layout.BlockSize)
		}
	}
	g.head = uint32(min((head+uint64(zone)-1)/uint64(zone), uint64(g.zones)))
	g.overhead = int64(g.head) * zone
	g.rest = d.Size - int64(g.zones)*zone
	return g
}

// zoneBlocks returns a zone's length in blocks.
func (g geometry) zoneBlocks() uint32 { return uint32(g.zone / layout.BlockSize) }

// zonesFor returns how many zones hold that many blocks.
func (g geometry) zonesFor(blocks uint32) uint32 {
	z := g.zoneBlocks()
	return max(1, (blocks+z-1)/z)
}
