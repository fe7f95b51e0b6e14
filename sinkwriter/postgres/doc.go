// Package postgres opens connections to PostgreSQL, with the connection strings of libpq.
//
// # Design
//
// The driver, pgx, sends options that it does not know to the server, as settings of the session.
// So those of libpq that it lacks are handled here or refused by name; what is left is a setting,
// and the server refuses one that it does not know.
//
// A connection string is parsed for each connection again: the password file, the service file,
// certificates and keys are those of the moment. Passwords can be rotated, and tokens that live
// for minutes work, without a restart.
//
// A server that vanishes (packets are dropped, nothing is reset) is noticed by the kernel: it ends
// a connection when sent data is not acknowledged for [defaultUserTimeout], and an idle one when
// probes are not. What the driver does before it frees the place of a broken connection in its pool
// is bounded here by [closeTimeout]: a server that is frozen answers neither the cancel request nor
// the end.
package postgres
