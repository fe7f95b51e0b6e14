// Package instance is a function as Knative runs it: the process that takes
// events over HTTP, has the functions that it serves compute their effects,
// commits these with sinkwriter and publishes their outputs to JetStream.
//
// The package that lies beside func.yaml needs no more than
//
//	func New() *instance.Instance { return instance.New(Function()) }
//
// What func's scaffolding makes of that reads the environment, answers as package
// functions/serve says, and stops on SIGTERM without losing what it has
// acknowledged. Until the database is there and has the migrations that the
// functions need, it is not ready and every request is answered with 503.
//
// # Design
//
// Once ready, it stays ready while the database is away. All instances in all
// clusters share that database, so there is none that could do better, and
// taking them out of service would only make the way back longer. A 503 with
// Retry-After tells the sources what they need.
//
// It does not change tables by itself unless TANDEM_MIGRATE says so: then its
// role in the database must be allowed to, which many will not want of a program
// that takes requests.
package instance
