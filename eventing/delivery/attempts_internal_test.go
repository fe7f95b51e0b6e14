package delivery

import (
	"testing"
	"time"
)

func TestTheTimeOfFailedAttemptsIsThatInWhichTheFunctionWasAvailable(t *testing.T) {
	t.Parallel()

	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d := &Sender{cfg: Config{Now: func() time.Time { return now }, Timeout: time.Minute, TryFor: 15 * time.Minute, BackoffCap: 5 * time.Second}}
	e := &Delivery{}
	want := func(what string, want time.Duration) {
		t.Helper()
		if d.recordFailure(e); e.AttemptedFor != want {
			t.Errorf("%s: %s count, want %s", what, e.AttemptedFor, want)
		}
	}
	want("the first attempt", 0)
	now = now.Add(20 * time.Second)
	want("20 s later", 20*time.Second)

	// Another answer to the event in between changes nothing, because other events are
	// answered.
	e.interrupted = true
	now = now.Add(40 * time.Second)
	want("40 s later, with another answer in between", time.Minute)

	// The function may have been unavailable for this event only.
	e.interrupted = true
	now = now.Add(time.Hour)
	want("an hour later, with another answer in between", time.Minute+30*time.Second+time.Minute)

	// An outage for all events does not count, even if it continues.
	d.outages.note(now.Add(10*time.Second), false)
	d.outages.note(now.Add(20*time.Second), false)
	d.outages.note(now.Add(time.Hour), true)
	d.outages.note(now.Add(time.Hour+time.Second), true)
	d.outages.note(now.Add(time.Hour+5*time.Second), false)
	now = now.Add(2 * time.Hour)
	want("after outages", 2*time.Minute+45*time.Second)
}
