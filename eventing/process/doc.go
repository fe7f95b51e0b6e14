// Package process is a function as Knative runs it: the process that takes
// events over HTTP, has the functions that it serves compute their effects,
// commits these with sinkwriter and publishes their outputs to JetStream.
//
// The package that lies beside func.yaml needs no more than
//
//	func New() *process.Runtime { return process.New(Function()) }
//
// What func's scaffolding makes of that reads the environment, answers as package
// eventing/serve says, and stops on SIGTERM without losing what it has
// acknowledged. Until the database is there and has the migrations that the
// functions need, it is not ready and every request is answered with 503.
//
// # Metrics
//
// METRICS_ADDRESS serves them to Prometheus, OTEL_EXPORTER_OTLP_ENDPOINT has them
// sent. All have the label cluster:
//
//   - tandem_function_requests_total{status}: requests answered; with the label
//     function if one alone is served.
//   - tandem_writer_receipts_total{function, receipt}: events won and lost.
//   - tandem_writer_divergence_total{function}: the function is not deterministic;
//     the log and table tandem.divergence tell of which event. Above zero somebody
//     has to look.
//   - tandem_writer_other_version_total{function}: the same between two versions.
//   - tandem_writer_refused_total{function, fault}: events that were not committed.
//   - tandem_writer_batches_total, tandem_writer_retries_total,
//     tandem_writer_published_total: of the writer as a whole.
//   - tandem_writer_rejected_outputs: outputs that the stream or the sink rejected for
//     good, of all clusters and functions (tandem rejected-outputs).
//   - tandem_writer_outbox_bytes: outputs that wait in the database, of all
//     clusters and functions; missing while the database is away.
//
// # Design
//
// Once ready, it stays ready while the database is away. All processes in all
// clusters share that database, so that no other could do better, and taking them
// out of service would only delay the recovery. A 503 with
// Retry-After tells the sources what they need.
//
// It does not change tables by itself unless TANDEM_MIGRATE says so: then its
// role in the database must be allowed to, which many will not want of a program
// that takes requests.
package process
