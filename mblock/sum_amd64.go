package mblock

import "golang.org/x/sys/cpu"

// wide says that the processor has what sumWide needs. It is never written.
var wide = cpu.X86.HasAVX512F && cpu.X86.HasAVX512VPCLMULQDQ && cpu.X86.HasSSE42

// sumWide returns the CRC32C of a block's index and its 4096 bytes, from the one
// of what comes before, as [seed.sum] does, several times as fast as hash/crc32,
// which takes three parts of a block at a time. The bytes as many from block on as
// ahead says are fetched meanwhile; they need not be there.
//
//go:noescape
func sumWide(crc uint32, index uint64, block *byte, ahead uintptr) uint32
