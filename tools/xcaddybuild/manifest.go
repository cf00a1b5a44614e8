package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	// Version is needed unless there is a replacement, or the plugin is a package of another
	// one's module that has one.
	Version string `json:"version,omitempty"`
	// Replacement is a directory with the module, relative to the manifest.
	Replacement string `json:"replacement,omitempty"`
	// Optional is a name by which the plugin must be asked for; empty is always.
	Optional string `json:"optional,omitempty"`
	// Cgo tells that the plugin needs a C compiler.
	Cgo bool `json:"cgo,omitempty"`
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

// choose leaves out the optional plugins that were not asked for.
func (m Manifest) choose(names []string) (Manifest, error) {
	left := slices.Clone(names)
	var chosen []Plugin
	for _, p := range m.Plugins {
		if p.Optional == "" || slices.Contains(names, p.Optional) {
			chosen = append(chosen, p)
			left = slices.DeleteFunc(left, func(name string) bool { return name == p.Optional })
		}
	}
	if len(left) > 0 {
		return m, fmt.Errorf("the manifest has no optional plugin %s", strings.Join(left, ", "))
	}
	m.Plugins = chosen
	return m, nil
}

// cgo reports whether a plugin needs it. xcaddy builds without unless it is told.
func (m Manifest) cgo() bool {
	return slices.ContainsFunc(m.Plugins, func(p Plugin) bool { return p.Cgo })
}

// args are the arguments for xcaddy. dir is where the manifest is.
func (m Manifest) args(dir, output string) ([]string, error) {
	if m.CaddyVersion == "" {
		return nil, errors.New("the manifest names no caddy_version")
	}
	args := []string{"build", m.CaddyVersion, "--output", output}
	for i, p := range m.Plugins {
		with, err := m.with(p, dir)
		if err != nil {
			return nil, fmt.Errorf("plugin %d of the manifest: %w", i+1, err)
		}
		args = append(args, with...)
	}
	return args, nil
}

func (m Manifest) with(p Plugin, dir string) ([]string, error) {
	switch {
	case p.Module == "":
		return nil, errors.New("it has no module")
	case p.Replacement == "" && p.Version == "" && !m.isHere(p):
		return nil, fmt.Errorf("%s has neither version nor replacement", p.Module)
	case p.Replacement == "" && p.Version == "":
		return []string{"--with", p.Module}, nil
	case p.Replacement == "":
		return []string{"--with", p.Module + "@" + p.Version}, nil
	}
	path, err := filepath.Abs(filepath.Join(dir, p.Replacement))
	if err != nil {
		return nil, err
	}
	version := p.Version
	if version == "" {
		// Without any, Go would ask the network for versions of what is here already.
		version = "v0.0.0"
	}
	// By the second, xcaddy knows what lies inside this module, for which it would ask too.
	return []string{"--with", p.Module + "@" + version + "=" + path, "--replace", p.Module + "=" + path}, nil
}

// isHere reports whether the plugin is a package of a module that is replaced.
func (m Manifest) isHere(p Plugin) bool {
	return slices.ContainsFunc(m.Plugins, func(q Plugin) bool {
		return q.Replacement != "" && strings.HasPrefix(p.Module, q.Module+"/")
	})
}
