//go:build !invariants

package mlog

// checkedBuild says that locks check their order, and allocate for it.
const checkedBuild = false
