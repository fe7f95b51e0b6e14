package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/sinkwriter/retire"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

const retireHelp = `Retires a function, or one cluster of it, for good. Stop its source first, in
Kubernetes by deleting its ContainerSource or Deployment.

Without --yes the command prints what it would remove and what prevents that, and changes
nothing. With --yes it removes

  the consumers tandem-CLUSTER-FUNCTION of the streams,
  the rows of the cluster: checkpoints, leases, standby, hedge, failed attempts,
    dead letters, deferred and stored events,
  of a function, also its events in the ledger, divergences and outputs.

The other clusters of the function, and other functions, continue: nothing waits for the
retired cluster any more, and the retention horizon advances. A function that returns
under its name continues where it ended, and starts no earlier: its horizons stay. Its
tables and its data stay too.

It refuses while a source is running, if no active cluster would remain, and while any of
these would be lost:

  messages          that no cluster has acknowledged
  dead-letters      without a verdict: replay or drop them
  deferred          events that wait for a change of the deployment
  stored            events behind a dead letter of their subject
  outputs           in the outbox: a source or a relay of any function publishes them
  rejected-outputs  replay or drop them

--discard names the kinds that may be lost, separated by commas. When the streams' servers
are gone for good, leave --nats-url out, and name messages.

You may run it again after a crash, and several times at once. The role of the database
URL must be the one that runs tandem migrate. --revoke revokes, at the end, the privileges
that tandem migrate --grant has granted to a role that only this function uses; it refuses
while sessions of that role exist.

The exit status is 1 if something keeps the command from removing what it prints.`

// lossMessages is the kind of messages in streams, in addition to the kinds of package
// retire.
const lossMessages = "messages"

// lossKinds are the kinds that --discard accepts, with their description and the command that
// lists them.
var lossKinds = map[string]struct{ what, see string }{
	lossMessages:           {"messages that no cluster has acknowledged", "wait until the function has processed them"},
	retire.LossDeadLetters: {"dead letters without a verdict", "tandem dead-letters list"},
	retire.LossDeferred:    {"deferred events", "tandem deferred list"},
	retire.LossStored:      {"events stored behind a dead letter", "tandem dead-letters list"},
	retire.LossOutputs:     {"outputs that are not published", "wait for the relay of any source"},
	retire.LossRejected:    {"rejected outputs", "tandem rejected-outputs list"},
}

const (
	// pullingPatience is how long a request for messages may outlive its process.
	pullingPatience = 3 * time.Second

	// typesLimit is the number of messages of a stream whose types are counted.
	typesLimit = 10_000
)

// retiring is one run of the command.
type retiring struct {
	tool *tool

	function, cluster string
	yes               bool
	discard           []string
	domains           []string
	revoke            string

	conn    *jetstream.Conn // nil without NATS
	streams []jetstream.StreamConsumers

	sessions int64 // of the role to revoke
}

// retirement is the output of the command.
type retirement struct {
	Function  string         `json:"function"`
	Cluster   string         `json:"cluster,omitempty"`
	Done      bool           `json:"done"`
	Removed   []removedThing `json:"removed"` // or to remove, if nothing is removed
	Obstacles []obstacle     `json:"obstacles"`
	Revoked   []string       `json:"revoked,omitempty"` // statements
	Notes     []string       `json:"notes,omitempty"`
}

// removedThing is a number of removed items of a kind.
type removedThing struct {
	What  string `json:"what"`
	From  string `json:"from"`
	Count int64  `json:"count"`
}

// obstacle is a reason why the command removes nothing.
type obstacle struct {
	Kind    string `json:"kind"`
	Count   int64  `json:"count,omitempty"`
	Text    string `json:"text"`
	Next    string `json:"next"`              // step
	Discard bool   `json:"discard,omitempty"` // --discard accepts it
}

func (t *tool) retireCommand() *cobra.Command {
	r := &retiring{tool: t}
	cmd := &cobra.Command{
		Use:   "retire FUNCTION",
		Short: "Retire a function, or one cluster of it, for good",
		Long:  retireHelp,
		Example: `  tandem retire --cluster west orders
  tandem retire --cluster west orders --yes
  tandem retire orders --yes --discard messages --revoke orders_writer`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.read(args); err != nil {
				return usage(cmd, err)
			}
			return explain(r.run(cmd.Context()))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.cluster, "cluster", "", "`name` of the one cluster to retire; the whole function by default")
	flags.BoolVar(&r.yes, "yes", false, "remove everything that is printed without it")
	flags.StringSliceVar(&r.discard, "discard", nil, "`kinds` that may be lost, for example messages,dead-letters")
	flags.StringSliceVar(&r.domains, "domains", nil, "`names` of JetStream domains beyond leaf nodes whose streams are searched too")
	flags.StringVar(&r.revoke, "revoke", "", "`role` that loses its privileges in the end")
	_ = cmd.RegisterFlagCompletionFunc("discard", cobra.FixedCompletions(slices.Sorted(maps.Keys(lossKinds)), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// read parses the arguments.
func (r *retiring) read(args []string) error {
	switch {
	case len(args) == 0:
		return errors.New("want the name of a function")
	case len(args) > 1:
		return fmt.Errorf("argument %q: want FUNCTION only", args[1])
	}
	r.function = args[0]
	for _, kind := range r.discard {
		if _, ok := lossKinds[kind]; !ok {
			return fmt.Errorf("--discard %q: want %s", kind, strings.Join(slices.Sorted(maps.Keys(lossKinds)), ", "))
		}
	}
	if r.revoke != "" && r.cluster != "" {
		return errors.New("--revoke and --cluster: want one of them, because the other clusters use the role")
	}
	return nil
}

func (r *retiring) run(ctx context.Context) error {
	pool, err := r.tool.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	database := retire.New(pool, r.function, r.cluster)
	plan, err := database.Plan(ctx)
	if err != nil {
		return err
	}
	if plan.Empty() && (r.revoke == "" || !plan.Horizon) {
		return r.nothingLeft(plan)
	}
	if err := r.connect(ctx, plan); err != nil {
		return err
	}
	if r.conn != nil {
		defer func() { _ = r.conn.Close(context.WithoutCancel(ctx)) }()
	}
	if r.revoke != "" {
		if r.sessions, err = database.Sessions(ctx, r.revoke); err != nil {
			return err
		}
	}
	if !r.yes {
		result, err := r.examine(ctx, plan)
		if err != nil {
			return err
		}
		return r.print(result)
	}
	var result retirement
	err = database.Reserve(ctx, func(reserved retire.Plan) (err error) {
		plan = reserved
		if r.conn != nil { // its source may have ended in the meantime
			if err = r.lookAtStreams(ctx, plan); err != nil {
				return err
			}
		}
		if result, err = r.examine(ctx, plan); err == nil && len(result.Obstacles) > 0 {
			err = errObstacles
		}
		return err
	})
	switch {
	case errors.Is(err, errObstacles):
		return r.print(result)
	case errors.Is(err, retire.ErrRunning): // print the running source
		if plan, err = database.Plan(ctx); err != nil {
			return err
		}
		if result, err = r.examine(ctx, plan); err != nil {
			return err
		}
		if len(result.Obstacles) == 0 {
			return retire.ErrRunning
		}
		return r.print(result)
	case err != nil:
		return err
	}
	if result.Removed, err = r.remove(ctx, database, plan); err != nil {
		return err
	}
	if r.revoke != "" {
		if result.Revoked, err = r.revokeRole(ctx); err != nil {
			return err
		}
	}
	result.Done = true
	return r.print(result)
}

// errObstacles ends a reservation: the result lists the obstacles.
var errObstacles = errors.New("something keeps the function from being retired")

// nothingLeft reports that there is nothing to remove, because it was removed or because the
// name is wrong.
func (r *retiring) nothingLeft(plan retire.Plan) error {
	switch {
	case r.cluster == "" && !plan.Horizon:
		return fmt.Errorf("no source has ever run for function %q: check the name and the database URL", r.function)
	case r.cluster != "" && len(plan.Others) == 0:
		return fmt.Errorf("nothing is left of function %q, nor of cluster %q of it: check the names and the database URL", r.function, r.cluster)
	}
	result := retirement{Function: r.function, Cluster: r.cluster, Done: true}
	if len(plan.Others) > 0 {
		result.Notes = append(result.Notes, "the clusters of the function are "+joinClusters(plan.Others))
	}
	return r.print(result)
}

func joinClusters(clusters []retire.Cluster) string {
	names := make([]string, len(clusters))
	for i, c := range clusters {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}

// connect connects to NATS, and finds streams and consumers. Without a URL it does nothing if
// messages may be lost.
func (r *retiring) connect(ctx context.Context, plan retire.Plan) (err error) {
	if r.conn, err = r.tool.openNATS(ctx); err != nil {
		switch {
		case !errors.Is(err, errNoNATS):
			return err
		case len(plan.Checkpoints) == 0 || slices.Contains(r.discard, lossMessages):
			return nil
		}
		return fmt.Errorf("%w; if the servers are gone for good, --discard messages", err)
	}
	return r.lookAtStreams(ctx, plan)
}

// lookAtStreams finds the streams and consumers. A consumer at which a process waits is looked up
// again, unless a source is known to run: the server keeps the request of a process that has
// ended.
func (r *retiring) lookAtStreams(ctx context.Context, plan retire.Plan) (err error) {
	clusters, origins := make([]string, len(plan.Retired)), make([]string, len(plan.Checkpoints))
	for i, c := range plan.Retired {
		clusters[i] = c.Name
	}
	for i, c := range plan.Checkpoints {
		origins[i] = c.Stream
	}
	patience := time.NewTimer(pullingPatience)
	defer patience.Stop()
	for {
		if r.streams, err = r.conn.ConsumersOf(ctx, r.function, clusters, origins, r.domains); err != nil || !r.pulling() ||
			slices.ContainsFunc(plan.Retired, func(c retire.Cluster) bool { return c.Running }) {
			return err
		}
		select {
		case <-patience.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (r *retiring) pulling() bool {
	for _, s := range r.streams {
		if slices.ContainsFunc(s.Consumers, func(c jetstream.Consumer) bool { return c.Pulling }) {
			return true
		}
	}
	return false
}

// examine returns the items to remove, and the obstacles.
func (r *retiring) examine(ctx context.Context, plan retire.Plan) (result retirement, err error) {
	result = retirement{Function: r.function, Cluster: r.cluster, Removed: []removedThing{}, Obstacles: []obstacle{}}
	for _, s := range r.streams {
		for _, c := range s.Consumers {
			result.Removed = append(result.Removed, removedThing{"consumer tandem-" + c.Cluster + "-" + r.function, "stream " + c.Stream, 1})
		}
	}
	for _, rows := range plan.Rows {
		if rows.Count > 0 {
			result.Removed = append(result.Removed, removedThing{rows.What, rows.Table, rows.Count})
		}
	}
	result.Obstacles = append(result.Obstacles, r.running(plan)...)
	result.Notes = append(result.Notes, r.consumersMissing(plan)...)
	losses := plan.Losses
	if r.cluster == "" && r.conn != nil {
		messages, err := r.unacknowledged(ctx, plan, &result)
		if err != nil {
			return result, err
		}
		if messages > 0 {
			losses = append([]retire.Loss{{Kind: lossMessages, Count: messages}}, losses...)
		}
	}
	for _, loss := range losses {
		if slices.Contains(r.discard, loss.Kind) {
			result.Notes = append(result.Notes, fmt.Sprintf("%d %s are lost", loss.Count, lossKinds[loss.Kind].what))
			continue
		}
		next := lossKinds[loss.Kind].see
		if strings.HasPrefix(next, "tandem ") {
			next += " --function " + r.function
			if r.cluster != "" && loss.Kind != retire.LossRejected {
				next += " --cluster " + r.cluster
			}
		}
		result.Obstacles = append(result.Obstacles, obstacle{
			Kind: loss.Kind, Count: loss.Count, Discard: true,
			Text: lossKinds[loss.Kind].what, Next: next + ", or --discard " + loss.Kind,
		})
	}
	if r.conn == nil && len(plan.Checkpoints) > 0 {
		result.Notes = append(result.Notes, "without --nats-url no consumer is deleted, and messages are not looked at")
	}
	return result, nil
}

// consumersMissing notes the clusters with a checkpoint and without a consumer.
func (r *retiring) consumersMissing(plan retire.Plan) (notes []string) {
	for _, c := range plan.Checkpoints {
		has := slices.ContainsFunc(r.streams, func(s jetstream.StreamConsumers) bool {
			return s.Origin == c.Stream && slices.ContainsFunc(s.Consumers, func(o jetstream.Consumer) bool { return o.Cluster == c.Cluster })
		})
		if r.conn != nil && !has {
			notes = append(notes, fmt.Sprintf("no consumer of cluster %s reads %s or a mirror of it at these servers: if one does in another domain, --domains", c.Cluster, c.Stream))
		}
	}
	return notes
}

// running returns the running sources as obstacles, and an obstacle if no active
// cluster would remain.
func (r *retiring) running(plan retire.Plan) (found []obstacle) {
	stop := "stop the source, and wait for a few seconds"
	for _, c := range plan.Retired {
		if c.Running {
			holder := cmp.Or(c.Holder, "a source without a lease")
			found = append(found, obstacle{
				Kind: "running", Count: 1, Next: stop,
				Text: fmt.Sprintf("the source of cluster %s is running: %s, heard of %s ago", c.Name, holder, c.Age.Round(time.Second)),
			})
		}
	}
	for _, s := range r.streams {
		for _, c := range s.Consumers {
			if c.Pulling && len(found) == 0 {
				found = append(found, obstacle{
					Kind: "running", Count: 1, Next: stop,
					Text: fmt.Sprintf("a process reads stream %s for cluster %s, and saves no checkpoint in this database", c.Stream, c.Cluster),
				})
			}
		}
	}
	if plan.RecentCommit() {
		found = append(found, obstacle{
			Kind: "running", Count: 1, Next: "stop what delivers its events, and wait for 3 minutes",
			Text: fmt.Sprintf("the function committed an event %s ago, and no source of its own has a checkpoint", plan.SinceCommit.Round(time.Second)),
		})
	}
	if r.sessions > 0 {
		found = append(found, obstacle{
			Kind: "sessions", Count: r.sessions, Next: "stop what uses it, or leave --revoke out",
			Text: fmt.Sprintf("role %s has %d sessions in this database", r.revoke, r.sessions),
		})
	}
	if r.cluster == "" {
		return found
	}
	reads := func(c retire.Cluster) bool { return c.Reads }
	works := func(c retire.Cluster) bool { return c.Reads && !c.StandBy }
	switch {
	case !slices.ContainsFunc(plan.Retired, reads):
	case !slices.ContainsFunc(plan.Others, reads):
		found = append(found, obstacle{
			Kind: "last", Count: 1, Text: fmt.Sprintf("%s is the only cluster of function %s", r.cluster, r.function),
			Next: "tandem retire " + r.function + " retires the function",
		})
	case !slices.ContainsFunc(plan.Others, works):
		found = append(found, obstacle{
			Kind: "standby", Count: 1, Text: fmt.Sprintf("%s would remain, and stands by: no event would be processed", joinClusters(plan.Others)),
			Next: fmt.Sprintf("tandem hedge %s race", r.function),
		})
	}
	return found
}

// unacknowledged returns how many messages no cluster has acknowledged, in all streams that
// the function has read, and adds notes with their types.
func (r *retiring) unacknowledged(ctx context.Context, plan retire.Plan, result *retirement) (messages int64, err error) {
	for _, origin := range originsOf(plan) {
		n, from, at, found := r.leastUnacknowledged(plan, origin)
		if !found {
			result.Obstacles = append(result.Obstacles, unseenStream(origin, r.discard)...)
			continue
		}
		if n == 0 {
			continue
		}
		messages += int64(n)
		types, err := r.types(ctx, at, from)
		if err != nil {
			return 0, err
		}
		result.Notes = append(result.Notes, fmt.Sprintf("stream %s has %d messages that no cluster has acknowledged: %s", at, n, types))
	}
	return messages, nil
}

// unseenStream returns the obstacle that a stream cannot be examined.
func unseenStream(origin string, discard []string) []obstacle {
	if slices.Contains(discard, lossMessages) {
		return nil
	}
	return []obstacle{{
		Kind: lossMessages, Discard: true, Text: "the servers at --nats-url have no stream " + origin + ", which the function has read",
		Next: "check --nats-url and --domains, or --discard " + lossMessages,
	}}
}

func originsOf(plan retire.Plan) []string {
	var origins []string
	for _, c := range plan.Checkpoints {
		origins = append(origins, c.Stream)
	}
	slices.Sort(origins)
	return slices.Compact(origins)
}

// leastUnacknowledged returns how many messages of an origin are unacknowledged in the cluster
// that has acknowledged most, from which sequence on, and in which stream. For a cluster without
// a consumer, for example after an interrupted retirement, its checkpoint counts.
func (r *retiring) leastUnacknowledged(plan retire.Plan, origin string) (n, from uint64, at string, found bool) {
	consider := func(messages, sequence uint64, stream string) {
		if !found || messages < n {
			n, from, at, found = messages, sequence, stream, true
		}
	}
	for _, s := range r.streams {
		if s.Origin != origin {
			continue
		}
		for _, c := range s.Consumers {
			consider(c.Unacknowledged, c.Floor, s.Name)
		}
		for _, c := range plan.Checkpoints {
			if c.Stream != origin {
				continue
			}
			floor := max(c.Floor, s.First)
			if c.Epoch != s.Epoch { // another incarnation of the stream
				floor = s.First
			}
			if !slices.ContainsFunc(s.Consumers, func(o jetstream.Consumer) bool { return o.Cluster == c.Cluster }) {
				consider(s.Last+1-min(floor, s.Last+1), floor, s.Name)
			}
		}
	}
	return n, from, at, found
}

// types returns the number of events of each type in a stream from a sequence on.
func (r *retiring) types(ctx context.Context, stream string, from uint64) (string, error) {
	counts, read := map[string]int{}, 0
	enough := errors.New("enough")
	err := r.conn.History(ctx, jetstream.ParseStream(stream), from, from+typesLimit, func(p jetstream.Past) error {
		counts[p.Event.Type()]++
		if read++; read == typesLimit {
			return enough
		}
		return nil
	})
	if err != nil && !errors.Is(err, enough) {
		return "", err
	}
	list := make([]string, 0, len(counts))
	for _, name := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b)) }) {
		list = append(list, fmt.Sprintf("%d %s", counts[name], name))
	}
	if read == typesLimit {
		list = append(list, "…")
	}
	return strings.Join(list, ", "), nil
}

// remove deletes consumers, and then rows.
func (r *retiring) remove(ctx context.Context, database *retire.Retirement, plan retire.Plan) (removed []removedThing, err error) {
	var heads []retire.Head
	for _, s := range r.streams {
		for _, c := range s.Consumers {
			heads = append(heads, retire.Head{Stream: s.Origin, Epoch: s.Epoch, Sequence: c.Head})
			if err := r.conn.DeleteConsumer(ctx, c, r.function); err != nil {
				return nil, err
			}
			removed = append(removed, removedThing{"consumer tandem-" + c.Cluster + "-" + r.function, "stream " + c.Stream, 1})
		}
	}
	rows, err := database.Remove(ctx, plan, heads)
	if err != nil {
		return nil, err
	}
	for _, of := range rows {
		if of.Count > 0 {
			removed = append(removed, removedThing{of.What, of.Table, of.Count})
		}
	}
	return removed, nil
}

// revokeRole revokes what the role was granted.
func (r *retiring) revokeRole(ctx context.Context) ([]string, error) {
	url, err := r.tool.database()
	if err != nil {
		return nil, err
	}
	return schema.Revoke(ctx, url, r.revoke)
}

// print prints the result.
func (r *retiring) print(result retirement) error {
	t := r.tool
	if t.output.json {
		if err := t.printJSON(result); err != nil {
			return err
		}
	} else if err := r.printTables(result); err != nil {
		return err
	}
	if len(result.Obstacles) > 0 {
		return &foundError{}
	}
	return nil
}

func (r *retiring) printTables(result retirement) error {
	t := r.tool
	subject := "function " + r.function
	if r.cluster != "" {
		subject = "cluster " + r.cluster + " of " + subject
	}
	if len(result.Removed) > 0 {
		heading := "REMOVES"
		if result.Done {
			heading = "REMOVED"
		}
		table := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
		row(table, heading, "FROM", "COUNT")
		for _, thing := range result.Removed {
			row(table, thing.What, thing.From, fmt.Sprint(thing.Count))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	for _, sql := range result.Revoked {
		t.printf("%s;\n", sql)
	}
	for _, o := range result.Obstacles {
		count := ""
		if o.Discard && o.Count > 0 {
			count = fmt.Sprintf("%d ", o.Count)
		}
		t.printf("refused: %s%s: %s\n", count, o.Text, o.Next)
	}
	for _, note := range result.Notes {
		t.printf("note: %s\n", note)
	}
	switch {
	case len(result.Obstacles) > 0:
		return t.print("%s was not retired\n", subject)
	case result.Done && len(result.Removed) == 0:
		return t.print("nothing is left of %s\n", subject)
	case result.Done:
		return t.print("%s is retired\n", subject)
	}
	return t.print("nothing was removed: --yes does it\n")
}
