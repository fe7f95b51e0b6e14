// Package harness starts the servers that benchmarks measure on, makes the databases and
// streams of a trial, and reads what processes have used: for test/bench, test/bench/e2e
// and test/peers.
package harness
