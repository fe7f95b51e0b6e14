// Package deployment starts two clusters, a database and a JetStream of three servers, each
// a process of its own, for chaos and drills. Every two of them are joined by a link of
// package devcluster/link, in which anything that a network does can happen.
//
// A [Deployment] can do and undo faults. When to do so, and how to judge what is left, is
// for test/chaos and test/drill. Package workload makes the events and knows what must
// come out of them.
package deployment
