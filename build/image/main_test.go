package main

import (
	"bytes"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// TestReproducible builds twice and pushes to a real registry.
func TestReproducible(t *testing.T) {
	binary := staticBinary(t)
	server := httptest.NewServer(registry.New())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	dir := t.TempDir()
	var tars [2][]byte
	for i := range tars {
		o := options{binary: binary, tag: "davit.dev/davit:test", output: filepath.Join(dir, "out.tar"), push: host, certs: "/none", arch: "amd64", insecure: true}
		if err := run(o, new(bytes.Buffer)); err != nil {
			t.Fatal(err)
		}
		var err error
		if tars[i], err = os.ReadFile(o.output); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(tars[0], tars[1]) {
		t.Error("two builds of the same inputs differ")
	}
	ref, err := name.ParseReference(host+"/davit:test", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	image, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != user || config.Config.Entrypoint[0] != "/"+binaryPath {
		t.Errorf("config is %+v", config.Config)
	}
}

// TestMadeOnce: the same inputs leave the image alone that is there. Others, or a tar that somebody
// else wrote in its place, have it made again.
func TestMadeOnce(t *testing.T) {
	binary := staticBinary(t)
	o := options{binary: binary, tag: "davit.dev/davit:test", output: filepath.Join(t.TempDir(), "out.tar"), certs: "/none", arch: "amd64"}
	began := time.Unix(1, 0)
	anew := func() (again bool, said string) {
		t.Helper()
		var out bytes.Buffer
		if err := run(o, &out); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(o.output)
		if err != nil {
			t.Fatal(err)
		}
		again = !st.ModTime().Equal(began)
		began = st.ModTime()
		return again, out.String()
	}
	_, first := anew()
	if again, said := anew(); again || said != first {
		t.Errorf("the same image is made again: %v, %q, was %q", again, said, first)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func() error{
		"binary": func() error { return os.WriteFile(binary, append(data, 1), 0o600) },
		"tag":    func() error { o.tag = "davit.dev/davit:other"; return nil },
		"tar":    func() error { return os.WriteFile(o.output, []byte("nothing"), 0o600) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(o.output)
		if err != nil {
			t.Fatal(err)
		}
		began = st.ModTime()
		if again, _ := anew(); !again {
			t.Errorf("another %s, and the image is left as it was", what)
		}
	}
}

// TestWhatWasNotWrittenIsNotTaken: an older tar in the place of one that could not be written is not that one.
func TestWhatWasNotWrittenIsNotTaken(t *testing.T) {
	o := options{binary: staticBinary(t), tag: "davit.dev/davit:test", output: filepath.Join(t.TempDir(), "out.tar"), certs: "/none", arch: "amd64"}
	if err := run(o, new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	o.tag = "no tag"
	for range 2 {
		if err := run(o, new(bytes.Buffer)); err == nil {
			t.Error("the older tar was taken for it")
		}
	}
}

func TestRefusesWhatIsNoBinary(t *testing.T) {
	file := filepath.Join(t.TempDir(), "davit")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(options{binary: file, output: file + ".tar"}, new(bytes.Buffer)); err == nil {
		t.Error("a script was taken for a binary")
	}
}

// staticBinary writes the smallest ELF file that has no interpreter.
func staticBinary(t *testing.T) string {
	t.Helper()
	header := make([]byte, 64)
	copy(header, "\x7fELF\x02\x01\x01")
	header[16], header[18], header[20], header[52] = 2, 0x3e, 1, 64 // executable, x86-64, version, header size
	header[54], header[58] = 56, 64                                 // sizes of program and section headers
	file := filepath.Join(t.TempDir(), "davit")
	if err := os.WriteFile(file, header, 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}
