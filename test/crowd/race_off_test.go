//go:build !race

package crowd

const raceDetector = false
