// Package deadletter stores dead letters, one per event, function and cluster ([Store]),
// and reports what to think of each: poison, a sick cluster, or undecided ([Verdicts]).
package deadletter
