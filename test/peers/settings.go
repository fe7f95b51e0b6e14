package main

// setting is a configuration choice for a peer, with the reason.
type setting struct{ what, value, why string }

// common are the choices for all peers except Tandem.
var common = []setting{
	{"driver", "pgx v5, native interface, its cache of prepared statements", "what Watermill's, DBOS's and River's own examples use; the fastest of those that they support"},
	{"effects", "one statement for row and total", "no row pays for round trips that are not the library's; the contended row, the airport's, is locked last"},
	{"connections", "as many as events are worked on at a time", "8, 24 and 64 were tried for each; the table has the best"},
	{"acknowledgement", "explicit, not waited for", "if it is lost, the event is redelivered and recognized"},
	{"AckWait", "30 s", "JetStream's and Watermill's default"},
}

// settingsOf are the choices for each, by title.
var settingsOf = []struct {
	title, about, offers string
	list                 []setting
}{
	{
		title:  "By hand",
		about:  "A transaction per event: `insert into processed … on conflict do nothing`, row, total, outbox; a poller in each process publishes the rows of the outbox and deletes them. Once with a round trip for each statement, as it is mostly written, and once with all in one statement (a chain of data-modifying CTEs), which is one round trip and the best that we know for a transaction per event.",
		offers: "Nothing to install, to learn or to wait for. Any SQL at any place, reads included, and any database.",
		list: []setting{
			{"poller", "200 rows at a time, `for update skip locked`, again at once if there were any, else after 20 ms", "more often costs processor time that the handlers need"},
			{"publishing", "all of a batch ahead, then their acknowledgements", "a round trip for each would be slower"},
		},
	},
	{
		title:  "Watermill 1.5",
		about:  "A router with one handler, whose transaction has the inbox (`processed`), the effects and, by a forwarder.Publisher around a watermill-sql publisher on that transaction, the output; a forwarder in each process publishes it. Watermill's own deduplicator is not used: it stores an event before its handler runs, so an event whose handler failed would be dropped (middleware/deduplicator.go).",
		offers: "Any broker in and out (Kafka, AMQP, Google Cloud, Redis, HTTP and more) behind one interface; middlewares (throttle, poison queue, circuit breaker, correlation); handlers that read and write any database; an outbox in one order.",
		list: []setting{
			{"NATS", "watermill-nats `pkg/nats` with JetStream", "`pkg/jetstream` calls itself beta and recommends this one for production (pkg/jetstream/subscriber.go)"},
			{"SubscribersCount", "the concurrency, with QueueGroupPrefix and DurablePrefix", "a subscriber waits for its handler, so this is the concurrency (pkg/nats/subscriber.go)"},
			{"AckAsync", "true", "otherwise each event waits for a round trip (JetStreamConfig)"},
			{"SubscribeOptions", "ManualAck, AckExplicit, MaxAckPending eight times the subscribers", "without ManualAck the client acknowledges messages that the handler did not; with 10,000, tried at first, the first subscriber received most of a backlog and the others idled"},
			{"outbox", "DefaultPostgreSQLSchema and -OffsetsAdapter, SubscribeBatchSize 200", "those of the forwarder's example; \"1 … may have a negative impact on performance\", the default is 100 (schema_adapter_postgresql.go)"},
			{"PollInterval, RetryInterval", "20 ms, 50 ms", "their defaults of 1 s would only add to latency"},
			{"TrackMsgID", "true, message UUIDs derived from source and id", "the stream drops repeated messages"},
		},
	},
	{
		title:  "DBOS Transact for Go 1.2",
		about:  "A workflow per event, its id the event's source and id; in it RunAsTransaction with the effects, and for a late flight RunAsStep with the publication. An event is acknowledged once its workflow is recorded, as the README advises for events. The row through a queue enqueues it (WithQueue), for both clusters to take.",
		offers: "Workflows of many steps that resume where they were, for days; durable sleep, messages and events between workflows, schedules, queues with rate limits and priorities, versions and forks of running workflows, a dashboard and automatic recovery by other processes (Conductor, a service of its own, which was not used here); steps that call anything.",
		list: []setting{
			{"SystemDBPool = the data source's pool", "one pool", "then a transaction step and its record are one transaction instead of two (\"collapses\", datasource.go)"},
			{"MaxConns", "the concurrency", "the default is 20 (sysdb/system_database.go)"},
			{"ExecutorID", "the cluster's name, ApplicationVersion 1", "so that a process that starts again recovers its workflows (the self-hosting guide)"},
			{"handles", "GetResult only of workflows that run here", "for others it polls the database, every second"},
			{"queue", "worker concurrency four times the connections, polled every 20 ms", "the default of 1 s would have the connections idle (queue.go)"},
		},
	},
	{
		title:  "River 0.51",
		about:  "A job per event, unique by its source and id (`river:\"unique\"`), inserted with InsertMany, as many together as have arrived, and then acknowledged; its worker's transaction has JobCompleteTx, the effects and, with InsertTx, the job that publishes. Both clusters work on the same queue.",
		offers: "A job queue: retries with backoff for each job, schedules, periodic jobs, priorities, snooze, cancel, pause; a web interface; workers that may do anything, reads and calls included; uniqueness for a limited time. Completed jobs are deleted after 24 hours by default, and repeats are then no longer recognized.",
		list: []setting{
			{"FetchCooldown, FetchPollInterval", "2 ms, 20 ms", "\"Throughput is limited by this value\"; the values of River's own benchmark (cmd/river/riverbench)"},
			{"MaxWorkers", "500 for each queue", "according to the benchmark, about 1,000 are best for jobs that do nothing; here they wait for connections, and the jobs of a dead process have to be rescued"},
			{"InsertMany", "at most 500, repeats within them left out", "InsertManyFast fails if a job exists already (client.go); InsertMany fails if a job is twice in the same call"},
			{"JobCompleteTx", "in the job's transaction", "exactly once, and one update of the job less"},
			{"outputs", "a queue of their own", "otherwise they would wait behind the backlog of flights"},
			{"JobTimeout, RescueStuckJobsAfter", "10 s, 15 s", "the default of an hour would leave the jobs of a dead process for that long; it must be above the timeout"},
		},
	},
	{
		title:  "Tandem",
		about:  "A source and a function in each cluster, two processes that communicate over HTTP, as they are deployed; functions/flights unchanged. Every event is computed in both clusters. A batch contains the events that are waiting when the source sends a request.",
		offers: "",
		list: []setting{
			{"everything", "the defaults: two connections that commit, batches of up to 512", ""},
		},
	},
}
