package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// markdown returns the report for people.
func (r *report) markdown() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Beside Watermill, DBOS, River and by hand: same work, same run\n\n%s\n", strings.TrimSpace(aim))
	line("%s\n", r.verdict())
	if text := r.beside(); text != "" {
		line("%s\n", text)
	}
	line("Made by `make peers` on %s, in %s. Compare figures of two runs only as ratios.", r.Begun.Format("2 January 2006, 15:04 MST"), r.Took.Round(time.Second))
	if r.Quick {
		line("This was a quick look: one short round.")
	}
	if !r.Continued.IsZero() {
		line("It was cut short after the rounds and continued at %s: latencies, and those killed clusters that were missing, are from then.", r.Continued.Format("15:04 MST"))
	}
	if r.CutShort != "" {
		line("It was cut short: %s.", r.CutShort)
	}
	if r.Note != "" {
		line("%s", r.Note)
	}
	line("")
	for _, s := range r.Setup {
		line("- %s", s)
	}
	for _, v := range r.Versions {
		line("- %s", v)
	}
	line("\n## The work\n\n%s\n", strings.TrimSpace(theWork))
	line("![Events a second](peers.svg)\n")
	r.table(line)
	r.outcomes(line)
	line("## Why\n\n%s\n", strings.TrimSpace(why))
	r.configurations(line)
	line("## What this does not show\n\n%s", strings.TrimSpace(limits))
	return b.String()
}

const aim = `
After this page you know how Tandem compares with the same work by hand and with Watermill, DBOS and River: rates, latencies, the effect of
a killed cluster, and how each was configured.
`

const theWork = `
Flights as CloudEvents in a stream of JetStream, one in fifty of them twice. Two clusters, east and west, read it. A
consumer is an operating-system process in each of them (for Tandem two, source and function). An event is identified by its source
*and* id. Its effects, in one transaction: the flight's row (an upsert), its airport's count and minutes (a counter,
220 airports, so some are hot), and for a delay of an hour or more (5.5 %) an event to another stream, with an id that
is always the same. In most rows every event is delivered to both clusters, as with Tandem. With *one durable*, both share a
consumer of the stream, so that each event is delivered to one of them, which is the usual way to use the others and is cheaper.

Every trial has a new database and new streams and begins with a full stream and a checkpoint. It ends when all events
are committed, all outputs are in their stream and both clusters have acknowledged all messages. Then rows, totals and
outputs are compared, airport by airport, with the truth that comes with the flights; a difference would have ended the
run. Latency is measured from the stream's time of a message to the database's time of the commit (pg_xact_commit_timestamp),
which for all of them is before the commit is flushed.
`

const why = `
A commit and its round trips cost more than the work, so the number of events that share them decides. All the others
commit each event by itself: by hand and with Watermill once; River once, besides the batches in which it inserts,
fetches and completes jobs; DBOS three times at least (the workflow's record, its transaction, its outcome). PostgreSQL
flushes concurrent commits together, which is why more connections help them. Tandem commits the events of many
requests in one transaction, with statements that take arrays, and needs two connections for that. On the other side, it has
an HTTP request between source and function, for each event or, with TANDEM_BATCH, for many, and computes every event
in both clusters. The others call a function in the same process, and with one durable only once.

If you batch by hand, with arrays, a sorted claim and one transaction for hundreds of events, you have the same as Tandem, and without
HTTP it is faster; test/bench has the floor for that. Tandem is the rest of the work: one bad event in a batch, the order of locks, a
process stopped between two statements, the outbox of a dead process.
`

const limits = `
Another machine, another disk, a network between the parts: clients and servers share the cores here, and a round trip
costs some 0.1 ms. Where it costs 1 ms, programs with many round trips lose more. Handlers that take long: all of these do
next to nothing but write. Tables that have grown for months. Kafka.
`

func (r *report) table(line func(string, ...any)) {
	line("| | at a time | events/s | lowest–highest | p50 ms | p99 ms | p99 to output ms | connections | WAL bytes per event |")
	line("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
	for _, row := range r.Rows {
		var wal []float64
		connections := 0
		for _, t := range row.Rounds {
			wal = append(wal, t.WALPerEvent)
			connections = max(connections, t.Connections)
		}
		latencies := "– | – | –"
		if l := row.Latency; l != nil {
			latencies = fmt.Sprintf("%.1f | %.1f | %.1f", l.CommitP50, l.CommitP99, l.OutputP99)
		}
		line("| %s | %s | %s | %s–%s | %s | %d | %s |", row.Title, thousands(float64(row.Concurrency)),
			thousands(row.rate()), thousands(slices.Min(row.rates())), thousands(slices.Max(row.rates())),
			latencies, connections, thousands(median(wal)))
	}
	var counts []string
	for _, row := range r.Rows {
		if row.peer.factor > 1 {
			counts = append(counts, fmt.Sprintf("%s of %s", thousands(float64(row.Rounds[0].Events)), row.Title))
		}
	}
	for _, row := range r.Rows {
		for _, reason := range row.Again {
			line("\nA trial of %s was made again: %s", row.Title, reason)
		}
	}
	line("\n`at a time` is for each cluster, `connections` for both together. Distinct events per second are the median of %d rounds, which went round robin through the rows; %s events per trial, %s, which would be over too soon otherwise; short trials favor the others, whose tables stay small. Latency at %d events per second.\n",
		len(r.Rows[0].Rounds), thousands(float64(r.Events)), strings.Join(counts, ", "), r.Rate)
}

func (r *report) outcomes(line func(string, ...any)) {
	line("## A cluster is killed\n\nWith SIGKILL, all processes of it, when %.0f %% of a full stream were done. *Missing* are the events that were not committed when the other cluster was alone and idle for %s; *lost* and *doubled* are counted after the dead one had come back and was idle again. Outputs with the same id twice are not doubled: consumers drop them. The survivor had to process all remaining events, of which Tandem had five times as many as the others.\n", killAt*100, stallTimeout)
	line("| | missing meanwhile | survivor done after | lost | doubled | outputs lost | outputs repeated | done after it was back |")
	line("|---|---:|---:|---:|---:|---:|---:|---:|")
	for _, row := range r.Rows {
		k := row.Killed
		if k == nil {
			continue
		}
		line("| %s | %d | %s | %d | %d | %d | %d | %s |", row.Title, k.Alone.Lost, seconds(k.CaughtUp, "never"), k.Back.Lost, k.Back.Doubled,
			k.Back.OutputsLost+k.Back.OutputsDoubled, k.Back.OutputsRepeated, seconds(k.Recovered, afterBack(k)))
	}
	line("\n%s\n", strings.TrimSpace(aboutKills))
}

const aboutKills = `
Events that a dead process had acknowledged to the stream wait until another process rescues them: River's leader
does so after RescueStuckJobsAfter, which was 15 s here and is an hour by default. DBOS recovers the workflows of an
executor when one of that name starts again, or when its Conductor asks another one to; there was no Conductor here. Where both
clusters start the same workflow directly, the second one becomes the executor in its record although the
first one runs it (InsertWorkflowStatus: on conflict, executor_id), so the workflows of the dead one are not recovered when it
comes back; a restart of the *survivor*, or POST /dbos-workflow-recovery with its name, should recover them. Through a queue, or with one durable, the record
keeps its executor. Clusters that share a durable wait for AckWait, 30 s, for the messages that the dead one held.
`

func afterBack(k *killed) string {
	if k.Back.wrong() || k.Back.Lost > 0 || k.Back.Doubled > 0 {
		return "never"
	}
	return "–"
}

func seconds(s float64, otherwise string) string {
	if s == 0 {
		return otherwise
	}
	return fmt.Sprintf("%.1f s", s)
}

func (r *report) configurations(line func(string, ...any)) {
	line("## How each is configured\n\nThe programs are in [test/peers/consume](../test/peers/consume). For all but Tandem:\n")
	choices := func(list []setting) {
		line("| | | why |\n|---|---|---|")
		for _, s := range list {
			line("| %s | %s | %s |", s.what, s.value, s.why)
		}
		line("")
	}
	choices(common)
	for _, s := range settingsOf {
		line("### %s\n\n%s\n", s.title, s.about)
		choices(s.list)
		if s.offers != "" {
			line("*It offers, and Tandem does not:* %s\n", s.offers)
		}
	}
	line("Tried beforehand, events per second by concurrency:\n\n| | |\n|---|---|")
	for _, row := range r.Rows {
		var list []string
		for _, a := range row.Tried {
			list = append(list, fmt.Sprintf("%s: %s", thousands(float64(a.Concurrency)), thousands(a.EventsPerSecond)))
		}
		line("| %s | %s |", row.Title, strings.Join(list, ", "))
	}
	line("")
}
