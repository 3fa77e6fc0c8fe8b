//go:build !race

package mblock

const raced = false
