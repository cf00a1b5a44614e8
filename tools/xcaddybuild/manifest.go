package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Manifest is the content of xcaddy.json.
type Manifest struct {
	// CaddyVersion is Caddy's, as "v2.11.9".
	CaddyVersion string   `json:"caddy_version"`
	Plugins      []Plugin `json:"plugins"`
}

// Plugin is one module that is built in.
type Plugin struct {
	// Module is its path.
	Module string `json:"module"`
	// Version is needed unless there is a replacement.
	Version string `json:"version,omitempty"`
	// Replacement is a directory with the module, relative to the manifest.
	Replacement string `json:"replacement,omitempty"`
}

func readManifest(name string) (Manifest, error) {
	file, err := os.Open(name)
	if err != nil {
		return Manifest{}, err
	}
	defer file.Close()
	decoder := json.NewDecoder(file)
	decoder.DisallowUnknownFields()
	var m Manifest
	if err := decoder.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// args are the arguments for xcaddy. dir is where the manifest is.
func (m Manifest) args(dir, output string) ([]string, error) {
	if m.CaddyVersion == "" {
		return nil, errors.New("the manifest names no caddy_version")
	}
	args := []string{"build", m.CaddyVersion, "--output", output}
	for i, p := range m.Plugins {
		with, err := p.with(dir)
		if err != nil {
			return nil, fmt.Errorf("plugin %d of the manifest: %w", i+1, err)
		}
		args = append(args, "--with", with)
	}
	return args, nil
}

func (p Plugin) with(dir string) (string, error) {
	switch {
	case p.Module == "":
		return "", errors.New("it has no module")
	case p.Replacement == "" && p.Version == "":
		return "", fmt.Errorf("%s has neither version nor replacement", p.Module)
	case p.Replacement == "":
		return p.Module + "@" + p.Version, nil
	}
	path, err := filepath.Abs(filepath.Join(dir, p.Replacement))
	if err != nil {
		return "", err
	}
	version := p.Version
	if version == "" {
		// Without any, Go would ask the network for versions of what is here already.
		version = "v0.0.0"
	}
	return p.Module + "@" + version + "=" + path, nil
}
