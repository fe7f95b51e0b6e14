// Package link puts a network between two processes of one machine: a proxy for
// TCP that can be cut, silenced, delayed and made to lose or reset what crosses
// it, and healed again. A [Tap] follows the protocol of a connection and acts at
// a chosen byte of a chosen message.
//
// All devclusters, chaos runs, drills and tests go through this one proxy.
package link
