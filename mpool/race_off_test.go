//go:build !race

package mpool

const raced = false
