// Package source delivers the messages of one or more streams to one function, in one cluster,
// and acknowledges each message after the function has answered for it.
//
// The way of a message through the package:
//
//   - consumer.go reads it from its stream, from the position that checkpoint.go finds, and
//     acknowledges messages of other types, as types.go decides;
//   - internal/inflight owns it until it is acknowledged, and decides what happens next:
//     a lookup in the ledger, a wait, or a delivery, in order if so configured;
//   - lookup.go looks it up when the cluster hedges, shares, stands by or catches up;
//   - deliver.go sends it with others that are ready, through package delivery;
//   - ack.go acknowledges it, and redeliver.go sends a lost acknowledgement again.
//
// An event that only a change of the deployment can fix is stored and acknowledged while other
// events are committed (deferred.go), and runs again after the change (deferredrun.go).
//
// An event whose connection broke after it was sent is attempted alone (suspects.go and
// internal/inflight/suspect.go). If no other event arrives, witness.go finds out whether the
// function works.
//
// The rest of the package: hedgecontroller.go follows the hedge; peers.go follows the clusters
// among which a backlog is divided, and share.go those that share the events; blocked.go
// follows the dead letters that block their subjects; replica.go runs the source while this
// process has the lease; savecheckpoint.go saves once a second how far the stream is
// acknowledged, and saveattempts.go how often an event has failed.
//
// # State of a message
//
//	          received
//	             │
//	  ┌──────────┼──────────────┐ hedge, standby, another one's share
//	  │ race     │ lagging      ▼
//	  │          ▼   due     Waiting ◄───────────────┐
//	  │        Asking ◄─────────┤                    │ retry later
//	  │          │  │ others   │ due, race           │
//	  │  not     │  └─► Left ───┤ idle: Asking       │
//	  │ committed│  committed   │                    │
//	  ▼          ▼       │      ▼                    │
//	Blocked ◄─► Ready ◄──┼──────┘                    │
//	  ▲ order     │      │                           │
//	  │           ▼      │                           │
//	  │        Sending ──┼───────────────────────────┘
//	  │           │      │
//	  └ next of   ▼      ▼
//	    subject  Finished ── the floor has passed ──► gone
//
// While clusters share the events, an event of another cluster that is due and not committed is
// Left too, and an own event that was Ready for longer than the delay is looked up again.
//
// Before it is Ready, an event is Held, behind a probe, while its type is unavailable, and a
// failing event is Due until the budget of redeliveries allows it. An event that is being
// deferred is Deferring until it is stored.
//
// # Design
//
// The package knows neither a stream's protocol nor the database: a stream implements
// [eventing.Stream], the database the small interfaces [Checkpoints], [Ledger], [Attempts],
// [Blocked], [Deferred] and [Peers].
package source
