//go:build race

package credits

const raceDetector = true
