// Package conformance runs the scenarios of CloudEvents' conformance tests
// (github.com/cloudevents/conformance) against the endpoint as it is served: a
// process of its own, with func's server, a database, and a function that keeps what
// it is given. What is compared is what stands in the database afterwards.
//
// It is a module of its own, for what it needs to read the scenarios, and so the
// example of a function outside of Tandem's module.
//
// Not run: the scenarios of the Kafka binding. The endpoint speaks HTTP, and who
// reads Kafka is Knative's KafkaSource.
package conformance
