//go:build race

package bdev_test

const raceEnabled = true
