// Package clusters holds the tests of the whole: real processes of two or three
// clusters, a real PostgreSQL and a real NATS server, 20,000 real events, and
// somebody who kills what he can reach. Whatever happens, every total is exact
// and every output is there with one id.
package clusters
