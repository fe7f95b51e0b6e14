// Package relay publishes outputs that their winner committed and did not live to
// publish. It may run in every cluster at once.
package relay
