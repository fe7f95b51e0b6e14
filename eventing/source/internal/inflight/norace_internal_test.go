//go:build !race

package inflight

const raceDetector = false
