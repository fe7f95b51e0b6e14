// Package conformance runs the scenarios of CloudEvents' conformance tests
// (github.com/cloudevents/conformance) against the endpoint as it is served: a
// process of its own, with func's server, a database, and a function that stores its
// events. The tests compare the content of the database.
//
// It is a module of its own because of the dependencies to read the scenarios. So it
// is also an example of a function outside of Tandem's module.
//
// Not run: the scenarios of the Kafka binding. The endpoint supports HTTP; Knative's
// KafkaSource reads Kafka.
package conformance
