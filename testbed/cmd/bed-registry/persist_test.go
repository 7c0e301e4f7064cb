package main

import (
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// TestManifestsSurviveARestart pushes, deletes and restarts: what was there is there, what was deleted is not.
func TestManifestsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	start := func() *httptest.Server {
		quiet := registry.Logger(log.New(io.Discard, "", 0))
		h, err := persist(dir+"/manifests", registry.New(quiet, registry.WithBlobHandler(registry.NewDiskBlobHandler(dir))))
		if err != nil {
			t.Fatal(err)
		}
		return httptest.NewServer(h)
	}
	ref := func(s *httptest.Server, tag string) name.Reference {
		r, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://")+"/a/b:"+tag, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := start()
	index, err := random.Index(64, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref(first, "kept"), index); err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref(first, "gone"), img); err != nil {
		t.Fatal(err)
	}
	if err := remote.Delete(ref(first, "gone")); err != nil {
		t.Fatal(err)
	}
	first.Close()
	second := start()
	defer second.Close()
	want, _ := index.Digest()
	got, err := remote.Index(ref(second, "kept"))
	if err != nil {
		t.Fatal(err)
	}
	if digest, _ := got.Digest(); digest != want {
		t.Errorf("got %s, want %s", digest, want)
	}
	if _, err := remote.Image(ref(second, "gone")); err == nil {
		t.Error("a deleted tag came back")
	}
}
