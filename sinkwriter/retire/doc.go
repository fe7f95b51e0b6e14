// Package retire removes a function, or one of its clusters, from the database for good
// ([Retirement]): its checkpoints, leases, settings, attempts and stored events, and, of a
// function, its events in the ledger. What remains is the horizon: a function that returns
// continues where it ended, and applies nothing twice.
package retire
