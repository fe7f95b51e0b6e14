// Package link simulates a network between two processes of one machine: a proxy for
// TCP that can be cut, silenced and delayed, can lose or reset its traffic, and can be
// healed again. A [Tap] parses the protocol of a connection and acts at a chosen byte
// of a chosen message.
//
// All devclusters, chaos runs, drills and tests use this proxy.
package link
