// Package world runs two clusters over a database and a three-node JetStream, each part
// a process of its own, with a workload of which the truth is known: it is what chaos
// and drills strike. Between the parts are links, in which whatever a network does can
// happen.
//
// Nothing here knows about faults but how to do and undo them; when, and what to think
// of what is left, is for test/chaos and test/drill.
package world
