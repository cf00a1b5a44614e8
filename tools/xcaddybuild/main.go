// Command xcaddybuild runs xcaddy as a build manifest says: which Caddy, and which plugins
// in which versions.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	manifest := flag.String("manifest", "xcaddy.json", "the build manifest")
	xcaddy := flag.String("xcaddy", "xcaddy", "the xcaddy program")
	output := flag.String("output", "caddy", "the program to make")
	with := flag.String("with", "", "optional plugins of the manifest, with a comma between")
	flag.Parse()
	optional := strings.FieldsFunc(*with, func(r rune) bool { return r == ',' })
	if err := run(*manifest, *xcaddy, *output, optional); err != nil {
		fmt.Fprintln(os.Stderr, "xcaddybuild:", err)
		os.Exit(1)
	}
}

func run(manifest, xcaddy, output string, optional []string) error {
	m, err := readManifest(manifest)
	if err != nil {
		return err
	}
	if m, err = m.choose(optional); err != nil {
		return err
	}
	args, err := m.args(filepath.Dir(manifest), output)
	if err != nil {
		return err
	}
	cmd := exec.Command(xcaddy, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if m.cgo() {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	return cmd.Run()
}
