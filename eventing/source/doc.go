// Package source delivers the messages of one or more streams to one function, in one
// cluster, and acknowledges each message after the function has answered for it.
//
// A message's way through the package:
//
//   - consumer.go reads it from its stream, from the position that checkpoint.go finds, and
//     acknowledges messages of other types, as types.go decides;
//   - internal/inflight owns it until it is acknowledged, and decides what happens next:
//     a lookup in the ledger, a wait, or a delivery, in order if so configured;
//   - lookup.go looks it up, when the cluster hedges, shares, stands by or catches up;
//   - deliver.go sends it with others that are ready, through package delivery;
//   - ack.go acknowledges it, and redeliver.go sends a lost acknowledgement again.
//
// An event that only a change of the deployment can fix is stored and acknowledged while others
// are committed, see deferred.go, and run again after the change, see deferredrun.go.
//
// An event whose connection broke after it was sent is tried alone, see suspects.go and
// internal/inflight/suspect.go; witness.go finds out whether the function is well, if nothing
// else comes.
//
// Beside that way, hedgecontroller.go follows the hedge, peers.go the clusters that a
// backlog is divided with, share.go those that share the events, and blocked.go the dead
// letters that block their subjects; replica.go has the source run while this process has
// the lease; savecheckpoint.go saves once a second how far the stream is acknowledged, and
// saveattempts.go how often an event has failed.
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
// While clusters share the events, an event that is due and not committed is Left too, and an
// own one that was Ready for longer than the delay is looked up again.
//
// Before it is Ready, an event is Held while its type is unavailable, behind a probe, and a
// failing event is Due until the budget of redeliveries allows it. An event that is deferred is
// Deferring until it is stored.
//
// # Design
//
// The package knows neither a stream's protocol nor the database: a stream implements
// [eventing.Stream], the database the small interfaces [Checkpoints], [Ledger],
// [Attempts], [Blocked], [Deferred] and [Peers].
package source
