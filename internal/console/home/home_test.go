package home

import (
	"os"
	"path/filepath"
	"testing"

	"davit.dev/davit/internal/vault/seal"
)

// A disk that is full takes the way that was kept from nobody.
func TestHomeStaysOnAFullDisk(t *testing.T) {
	dir, key := t.TempDir(), &seal.Key{1}
	if err := Keep(dir, key, "p", "the way"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", filepath.Join(dir, file+".new")); err != nil {
		t.Fatal(err)
	}
	if err := Keep(dir, key, "p", "another way"); err == nil {
		t.Error("it was kept on a disk that is full")
	}
	var way string
	h, err := Read(dir, key)
	if err != nil || h.Project != "p" || h.Open(&way) != nil || way != "the way" {
		t.Errorf("%+v, %q, %v", h, way, err)
	}
}
