package serve

import "time"

// Left returns how many calls are late, and how many computations run.
func Left(h *Handler) (late int64, calls int) {
	h.running.mu.Lock()
	defer h.running.mu.Unlock()
	return h.lateCalls.Load(), len(h.running.calls)
}

// Countdown returns the next method of a countdown.
func Countdown(length time.Duration, now time.Time) (next func(time.Time) time.Duration) {
	return newCountdown(length, now).next
}

// IsDraining reports whether answers state that the process shuts down.
func (h *Handler) IsDraining() bool { return h.draining.begun.Load() }
