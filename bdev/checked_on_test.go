//go:build race || invariants

package bdev_test

// checkedBuild: the build checks itself, and allocates for it.
const checkedBuild = true
