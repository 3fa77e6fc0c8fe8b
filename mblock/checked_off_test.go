//go:build !invariants

package mblock

// checkedBuild says that locks check their order, and allocate for it.
const checkedBuild = false
