//go:build invariants

package mblock

const checkedBuild = true
