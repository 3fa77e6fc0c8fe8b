//go:build race || invariants

package bdev

// heapBuffers: buffers are Go memory; see AllocBuffer.
const heapBuffers = true
