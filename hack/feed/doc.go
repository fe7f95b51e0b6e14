// Package feed publishes the events of make run to the stream: real flights that
// are part of the project, or a user's own CloudEvents.
//
// # Guarantees
//
//   - The flights are the same events in every run: their ids are the line numbers of the file, so an event that is published again is deduplicated.
//   - An event counts as published only after the stream has acknowledged it. Until then it is published again.
//   - A run that was interrupted continues after the last acknowledged event of the previous one.
package feed
