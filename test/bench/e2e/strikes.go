package e2e

import (
	"context"
	"net/http"
	"syscall"
	"time"
)

// strike strikes cluster west as the row specifies, until ctx ends. It leaves no process
// stopped.
func (d *deployment) strike(ctx context.Context, l openLoop, s schedule, settle *settleMeter) error {
	begin := s.at(s.warm)
	switch l.row.strike {
	case strikeStop:
		return d.every(ctx, begin, time.Second, time.Second, func(int) error {
			d.stopWest(stallLength, "function", "source")
			return nil
		})
	case strikeNap:
		return d.every(ctx, begin, pausePeriodOf(l.duration)/4, pausePeriodOf(l.duration), func(int) error {
			if err := d.await(ctx, "a computation to sleep", func(ctx context.Context) error {
				_, err := request(ctx, http.MethodPost, d.controls[west]+"?nap="+pauseLength.String())
				return err
			}); err != nil && ctx.Err() == nil {
				return err
			}
			return nil
		})
	case strikeFreeze:
		return d.every(ctx, begin, pausePeriodOf(l.duration)/4, pausePeriodOf(l.duration), func(i int) error {
			d.stopWest(pauseLength, []string{"function", "source"}[i%2])
			return nil
		})
	case strikeFreezeBoth, strikeFreezeLong, strikeDatabase:
		if !sleep(ctx, begin.Add(l.duration/8).Sub(d.o.Now())) {
			return context.Cause(ctx)
		}
		if err := d.strikeOnce(l); err != nil {
			return err
		}
		settle.struck = d.o.Now()
		close(settle.over)
		<-ctx.Done()
		return context.Cause(ctx)
	default: // none, or strikeStall: the function stalls by itself
		return nil
	}
}

// strikeOnce strikes once, in a row about the time until recovery: for a quarter of a short
// trial at most.
func (d *deployment) strikeOnce(l openLoop) error {
	switch l.row.strike {
	case strikeDatabase:
		return d.database.Freeze(min(databaseLength, l.duration/4))
	case strikeFreezeLong:
		d.stopWest(min(freezeLength, l.duration/4), "function", "source")
	default:
		d.stopWest(min(pauseLength, l.duration/4), "function", "source")
	}
	return nil
}

// every calls do at begin + first, and after each period. It returns the cause of ctx's
// end, or do's error.
func (d *deployment) every(ctx context.Context, begin time.Time, first, period time.Duration, do func(i int) error) error {
	for i := 0; ; i++ {
		if !sleep(ctx, begin.Add(first+time.Duration(i)*period).Sub(d.o.Now())) {
			return context.Cause(ctx)
		}
		if err := do(i); err != nil {
			return err
		}
	}
}

// stopWest stops processes of cluster west for length.
func (d *deployment) stopWest(length time.Duration, kinds ...string) {
	all := func(signal syscall.Signal) {
		for _, p := range d.processes {
			for _, kind := range kinds {
				if p.cluster == west && p.kind == kind {
					_ = p.Kill(signal) // observeLag reports a process that has ended
				}
			}
		}
	}
	all(syscall.SIGSTOP)
	time.Sleep(length) // even if the trial ends meanwhile
	all(syscall.SIGCONT)
}

// pausePeriodOf returns the time between two pauses: a short trial has two.
func pausePeriodOf(duration time.Duration) time.Duration { return min(pausePeriod, duration/2) }
