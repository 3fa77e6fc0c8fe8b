//go:build !race

package credits

const raceDetector = false
