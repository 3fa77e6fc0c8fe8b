//go:build !amd64

package mblock

const wide = false

func sumWide(uint32, uint64, *byte, uintptr) uint32 { panic("mblock: no such instructions") }
