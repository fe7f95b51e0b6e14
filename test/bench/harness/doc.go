// Package harness starts the servers for benchmarks, creates the databases and streams
// of a trial, and reads the resource usage of processes: for test/bench, test/bench/e2e
// and test/peers.
package harness
