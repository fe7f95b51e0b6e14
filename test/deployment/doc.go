// Package deployment starts two clusters, a database and a JetStream of three servers, each
// a process of its own, for chaos and drills. Every two of them are joined by a link of
// package devcluster/link, which can simulate network faults.
//
// A [Deployment] can inject and undo faults. test/chaos and test/drill decide when, and
// judge the result. Package workload generates the events and computes the expected result.
package deployment
