package pgbin

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
)

// pipIndex returns the address of the Python package index that pip would use.
func pipIndex() string {
	if index := os.Getenv("PIP_INDEX_URL"); index != "" {
		return index
	}
	for _, name := range pipFiles() {
		if index := indexIn(name); index != "" {
			return index
		}
	}
	return "https://pypi.org/simple"
}

// pipFiles returns the files of pip's configuration, in order of precedence.
func pipFiles() []string {
	files := []string{os.Getenv("PIP_CONFIG_FILE")}
	if dir, err := os.UserConfigDir(); err == nil {
		files = append(files, filepath.Join(dir, "pip", "pip.conf"))
	}
	if home, err := os.UserHomeDir(); err == nil {
		files = append(files, filepath.Join(home, ".config", "pip", "pip.conf"), filepath.Join(home, ".pip", "pip.conf"))
	}
	return append(files, "/etc/xdg/pip/pip.conf", "/etc/pip.conf")
}

// indexIn returns index-url of section global in a configuration file of pip; empty if
// unset.
func indexIn(name string) string {
	file, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	section := ""
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			section = strings.TrimSpace(line[1 : len(line)-1])
			continue
		}
		at := strings.IndexAny(line, "=:")
		if section != "global" || at < 0 {
			continue
		}
		if key := strings.TrimSpace(line[:at]); key == "index-url" || key == "index_url" {
			return strings.TrimSpace(line[at+1:])
		}
	}
	return ""
}
