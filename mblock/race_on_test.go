//go:build race

package mblock

// raced says that the race detector makes everything ten times as slow.
const raced = true
