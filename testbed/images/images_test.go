package images

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestUnknownName(t *testing.T) {
	_, err := Build(t.Context(), t.TempDir(), "nothing", io.Discard)
	if err == nil || !strings.Contains(err.Error(), strings.Join(Names(), ", ")) {
		t.Errorf("Build(nothing) = %v, want an error that lists the names", err)
	}
}

func TestKeyFollowsTheRecipe(t *testing.T) {
	source := t.TempDir()
	program := filepath.Join(source, "prog", "main.go")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	key := func(r recipe) string {
		t.Helper()
		k, err := r.key(source)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	write(program, "package main")
	r := recipe{name: "x", program: "prog", packages: []string{"a"}}
	first := key(r)
	write(filepath.Join(source, "prog", "main_test.go"), "package main")
	if key(r) != first {
		t.Error("a test file changes the key")
	}
	more := r
	more.packages = []string{"a", "b"}
	more.hooks = slices.Clone(r.hooks)
	if key(more) == first {
		t.Error("another package keeps the key")
	}
	write(program, "package main // changed")
	if key(r) == first {
		t.Error("a changed source keeps the key")
	}
}

// TestBuildProgramImage needs no root and no Debian: it builds the application's image and finds it again.
func TestBuildProgramImage(t *testing.T) {
	cache := t.TempDir()
	first, err := Build(t.Context(), cache, "shop-app", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	made, err := os.Stat(first.Tar)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Build(t.Context(), cache, "shop-app", io.Discard)
	if err != nil || second != first {
		t.Fatalf("second Build() = %+v, %v; want %+v", second, err, first)
	}
	if again, err := os.Stat(second.Tar); err != nil || !os.SameFile(made, again) {
		t.Errorf("the cached image was made again: %v", err)
	}
}
