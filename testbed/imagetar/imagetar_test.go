package imagetar

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func TestWriteIsReproducible(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, []byte("binary"), 0o700); err != nil {
		t.Fatal(err)
	}
	img := Image{Ref: "davit.test/x:1", Entrypoint: []string{"/f"}, Entries: []Entry{
		{Path: "tmp", Dir: true, Mode: 0o1777}, {Path: "f", File: file}, {Path: "g", Link: "f"}, {Path: "etc", Data: "x", Mode: 0o644},
	}}
	var tars [2][]byte
	for i := range tars {
		path := filepath.Join(dir, "x.tar")
		if err := Write(path, img); err != nil {
			t.Fatal(err)
		}
		var err error
		if tars[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(tars[0], tars[1]) {
		t.Error("the same input gave different bytes")
	}
	built, err := tarball.ImageFromPath(filepath.Join(dir, "x.tar"), nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := built.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.OS != "linux" || len(cfg.RootFS.DiffIDs) != 1 || cfg.Config.Entrypoint[0] != "/f" {
		t.Errorf("config is %+v", cfg)
	}
}

func TestWriteLeavesNothingOnError(t *testing.T) {
	dir := t.TempDir()
	err := Write(filepath.Join(dir, "x.tar"), Image{Ref: "davit.test/x:1", Entries: []Entry{{Path: "f", File: filepath.Join(dir, "missing")}}})
	if err == nil {
		t.Fatal("packed a file that does not exist")
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}
