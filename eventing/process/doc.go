// Package process runs functions as a Knative process: it accepts events over HTTP,
// calls the functions to compute their effects, commits the effects with sinkwriter and
// publishes the outputs to JetStream.
//
// The package beside func.yaml needs only
//
//	func New() *process.Runtime { return process.New(Function()) }
//
// func's scaffolding calls it. The Runtime reads the environment, answers as package
// eventing/serve documents, and stops on SIGTERM without losing acknowledged events.
// Until the database is available and has the migrations that the functions need, it is
// not ready and answers every request with 503.
//
// # Metrics
//
// METRICS_ADDRESS serves metrics to Prometheus, OTEL_EXPORTER_OTLP_ENDPOINT pushes
// them. All have the label cluster:
//
//   - tandem_function_requests_total{status}: requests answered; with the label
//     function if only one is served.
//   - tandem_writer_receipts_total{function, receipt}: events won and lost.
//   - tandem_writer_divergence_total{function}: the function is not deterministic;
//     the log and table tandem.divergence have the events. Above zero an operator
//     has to look.
//   - tandem_writer_other_version_total{function}: the same between two versions.
//   - tandem_writer_refused_total{function, fault}: events that were not committed.
//   - tandem_writer_batches_total, tandem_writer_retries_total,
//     tandem_writer_published_total: of the writer as a whole.
//   - tandem_writer_rejected_outputs: outputs that the stream or the sink rejected
//     permanently, of all clusters and functions (tandem rejected-outputs).
//   - tandem_writer_outbox_bytes: outputs that wait in the database, of all
//     clusters and functions; missing while the database is unavailable.
//
// # Design
//
// Once ready, the process stays ready while the database is unavailable. All processes
// in all clusters share that database, so no other process could do better, and taking
// them out of service would only delay the recovery. A 503 with Retry-After is enough
// for the sources.
//
// The process changes tables only with TANDEM_MIGRATE. Then its database role needs the
// privileges, which many operators will not grant to a program that accepts requests.
package process
