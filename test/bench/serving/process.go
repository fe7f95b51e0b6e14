package serving

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// process is a server in a process of its own.
type process struct {
	cmd      *exec.Cmd
	address  string
	commands io.WriteCloser
	answers  *bufio.Reader
}

// startRow starts this program as a server on that many cores.
func startRow(ctx context.Context, row string, cores int, profile string, stderr io.Writer) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), childVariable+"="+row, fmt.Sprintf("GOMAXPROCS=%d", cores))
	if profile != "" {
		cmd.Env = append(cmd.Env, profileVariable+"="+profile)
	}
	cmd.Stderr = stderr
	p := &process{cmd: cmd}
	if p.commands, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.answers = bufio.NewReader(answers)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start server %s: %w", row, err)
	}
	line, err := p.answers.ReadString('\n')
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("start server %s: %w", row, err)
	}
	p.address = strings.TrimSpace(line)
	return p, nil
}

// used asks the server for its resource usage so far.
func (p *process) used() (usage, error) {
	var u usage
	if _, err := fmt.Fprintln(p.commands); err != nil {
		return u, fmt.Errorf("read the usage of the server: %w", err)
	}
	line, err := p.answers.ReadBytes('\n')
	if err != nil {
		return u, fmt.Errorf("read the usage of the server: %w", err)
	}
	return u, json.Unmarshal(line, &u)
}

// stop ends it.
func (p *process) stop() {
	_ = p.commands.Close()
	_ = p.cmd.Wait() // its figures are known, so its exit status does not matter
}
