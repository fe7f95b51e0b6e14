// Package postgres opens connections to PostgreSQL with libpq connection strings.
//
// # Design
//
// The driver, pgx, sends options that it does not know to the server as session settings. So
// libpq options that it does not support are handled here or rejected by name. All other
// options are settings, and the server rejects those that it does not know.
//
// Each new connection parses the connection string again, and so uses the current password
// file, service file, certificates and keys. Passwords can be rotated, and short-lived tokens
// work, without a restart.
//
// The kernel detects a server that is unreachable (packets are dropped, nothing is reset). It
// ends a connection when sent data is not acknowledged for [defaultUserTimeout], and an idle
// one when probes are not acknowledged. Before the driver frees the place of a broken
// connection in its pool, it sends a cancel request and waits for the end of the connection. A
// frozen server answers neither, so [closeTimeout] bounds both.
package postgres
