//go:build invariants

package mlog

const checkedBuild = true
