// Package feed is what `make run` feeds the stream with: real flights that come
// with the project, or a person's own CloudEvents.
//
// # What is promised
//
//   - The flights are the same events in every run: their ids count the lines of
//     the file, so what is published again is recognised as a repeat.
//   - Nothing counts as published that the stream has not acknowledged. What it
//     did not acknowledge is published again until it does.
//   - A run that is cut off goes on, the next time, where the stream's
//     acknowledgements ended.
package feed
