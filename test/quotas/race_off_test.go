//go:build !race

package quotas

const raceDetector = false
