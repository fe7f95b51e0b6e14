// Package clusters holds the tests of the whole: real processes of two or three
// clusters, a real PostgreSQL and a real NATS server, thousands of real events (make clusters: 20,000
// in each test), and a test that kills what it can reach. Whatever happens, every total is exact
// and every output is there with one id.
package clusters
