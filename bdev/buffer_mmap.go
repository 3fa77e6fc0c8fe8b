//go:build !race && !invariants

package bdev

// heapBuffers: buffers are mapped memory; see AllocBuffer.
const heapBuffers = false
