//go:build !race

package mlog

const raced = false
