//go:build !race

package sinkwriter_test

// raceEnabled: the race detector makes everything slower, so nothing is timed.
const raceEnabled = false
