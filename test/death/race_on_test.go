//go:build race

package death

const raceDetector = true
