package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write docs/tandem.md")

const referenceHead = `# The tool

After this page you can use every command of ` + "`tandem`" + `. It is generated from the commands' own help, which
` + "`tandem COMMAND --help`" + ` prints too: ` + "`go test ./eventing/cmd/tandem -run Reference -update`" + ` writes it again.

There are three ways to get it: ` + "`go tool tandem`" + ` in the folder of a function, after
` + "`go get -tool github.com/tandem-fn/tandem/eventing/cmd/tandem@latest`" + `; ` + "`make build`" + ` in a clone, which writes
` + "`bin/tandem`" + `; and the image ` + "`tandem`" + ` of ` + "`make images`" + `, for which neither Go nor a clone is needed:

` + "```console" + `
$ docker run --rm -it -e DATABASE_URL -e NATS_URL registry.example.com/team/tandem:dev dead-letters list
` + "```" + `

Where database and stream are reachable from the cluster only, run it there. Its label lets it through the network
policies, and the rest is what the namespace demands (not tried in a cluster):

` + "```console" + `
$ kubectl -n tandem run tool --rm -it --restart=Never --labels app.kubernetes.io/component=tool \
    --image registry.example.com/team/tandem:dev --override-type strategic --overrides '{"spec": {
      "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
      "containers": [{"name": "tool",
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        "env": [
          {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "tandem-migrate", "key": "database-url"}}},
          {"name": "NATS_URL", "valueFrom": {"secretKeyRef": {"name": "tandem", "key": "nats-url"}}}]}]}}' -- dead-letters list
` + "```" + `

` + "`migrate`, `verify` and `drill`" + ` run a function's program, so they need Go or a container engine; as a Job, the function's
own image migrates (` + "`config/functions/flights/migrate.yaml`" + `).

Flags come before or after arguments. ` + "`tandem completion bash`" + ` prints completion for your shell (also zsh, fish, powershell).
`

// reference returns docs/tandem.md.
func reference(cmd *cobra.Command) string {
	var b strings.Builder
	b.WriteString(referenceHead)
	section(&b, cmd)
	return b.String()
}

func section(b *strings.Builder, cmd *cobra.Command) {
	if cmd.Name() == "help" || cmd.Name() == "completion" {
		return
	}
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	fmt.Fprintf(b, "\n## %s\n\n```\n%s\n```\n", cmd.CommandPath(), text)
	if cmd.Runnable() {
		fmt.Fprintf(b, "\n```\n%s\n```\n", cmd.UseLine())
	}
	if cmd.Example != "" {
		lines := strings.Split(cmd.Example, "\n")
		for i := range lines {
			lines[i] = "$ " + strings.TrimSpace(lines[i])
		}
		fmt.Fprintf(b, "\n```console\n%s\n```\n", strings.Join(lines, "\n"))
	}
	flags := cmd.NonInheritedFlags().FlagUsages()
	if flags != "" {
		fmt.Fprintf(b, "\n```\n%s```\n", flags)
	}
	for _, c := range cmd.Commands() {
		section(b, c)
	}
}

func TestReferenceIsUpToDate(t *testing.T) {
	t.Parallel()

	tool := tool{env: func(string) string { return "" }}
	page := filepath.Join(root, "docs", "tandem.md")
	want := reference(tool.command())
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/tandem.md is not what the commands' help is; run go test ./eventing/cmd/tandem -run Reference -update (-want +got):\n%s", diff)
	}
}
