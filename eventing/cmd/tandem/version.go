package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version describes this build.
type version struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"` // of the revision
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// readVersion returns what the Go toolchain recorded in this build.
func readVersion() version {
	v := version{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version = info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func (t *tool) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this tool",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			v := readVersion()
			if t.output.json {
				return t.printJSON(v)
			}
			t.printf("tandem %s %s %s\n", v.Version, v.Go, v.Platform)
			if v.Revision != "" {
				t.printf("revision %s of %s\n", v.Revision, v.Time)
			}
			return nil
		},
	}
}
