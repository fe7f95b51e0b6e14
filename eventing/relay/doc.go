// Package relay publishes outputs that a winner committed and did not publish, because
// its process ended. It may run in every cluster at once.
package relay
