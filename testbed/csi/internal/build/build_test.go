package build

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKilledBuild: the go command of a build that was killed may go on. It does not write where the
// next build does, and what is published is what the next one built.
func TestKilledBuild(t *testing.T) {
	tools, source, cache := t.TempDir(), t.TempDir(), t.TempDir()
	// It tells where it was to build into. One that is killed leaves half a program there.
	script := `#!/bin/sh
while [ "$1" != -o ]; do shift; done
echo "$2" >>` + cache + `/told
mkdir -p "$2"
[ ! -e ` + cache + `/killed ] || { echo half >"$2"/csi-provisioner; exit 1; }
for package in "$@"; do echo whole >"$2"/"${package##*/}"; done
`
	files := map[string]string{
		filepath.Join(tools, "go"): script, filepath.Join(cache, "killed"): "",
		filepath.Join(source, "sidecars", "go.mod"): "", filepath.Join(source, "sidecars", "go.sum"): "",
	}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(cache, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", tools+":"+os.Getenv("PATH"))
	b := Builder{Source: source, Cache: cache, Progress: io.Discard}
	if _, err := b.sidecars(t.Context()); err == nil {
		t.Fatal("the build that was killed has an end")
	}
	if err := os.Remove(filepath.Join(cache, "killed")); err != nil {
		t.Fatal(err)
	}
	built, err := b.sidecars(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	told, err := os.ReadFile(filepath.Join(cache, "told"))
	if err != nil {
		t.Fatal(err)
	}
	if dirs := strings.Fields(string(told)); len(dirs) != 2 || dirs[0] == dirs[1] {
		t.Errorf("both were built into %q", dirs)
	}
	for _, path := range built {
		if text, err := os.ReadFile(path); err != nil || string(text) != "whole\n" {
			t.Errorf("%s is %q: %v", path, text, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(cache, "bin", "*.new*"))
	if err != nil || len(left) > 0 {
		t.Errorf("unfinished builds are left: %v %v", left, err)
	}
}
