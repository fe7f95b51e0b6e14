// Package deadletter stores dead letters, one per event, function and cluster ([Store]),
// and classifies each event that has one: poison, sick cluster, or undecided
// ([Verdicts]).
package deadletter
