// Package offsetstream is a log server in memory, for tests, with the rules of Kafka: a
// topic has partitions, each of which is an [eventing.Stream].
//
//   - The position of a group in a partition is one committed offset. Acknowledgements are
//     bookkeeping of the process: it commits the lowest unacknowledged offset. After a
//     restart everything from the committed offset on is redelivered.
//   - Offsets begin at 0, and have gaps: after every batch, one offset holds a marker that
//     consumers do not see.
//   - The partitions of a group change while it reads ([Server.Assign]).
//   - An unclean election removes the end of a partition ([Server.Truncate]). Other messages
//     are stored at the same offsets, in a later epoch. A committed offset has the epoch of
//     the message before it, which shows where the partition diverges.
//   - Messages are not deduplicated.
package offsetstream
