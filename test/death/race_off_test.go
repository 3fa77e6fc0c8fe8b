//go:build !race

package death

const raceDetector = false
