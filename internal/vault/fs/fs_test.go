package fs_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fs"
)

func put(t *testing.T, s *fs.Store, key string) error {
	t.Helper()
	return s.Put(t.Context(), key, strings.NewReader("x"), 1)
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", "relative", file, file + "/below", "/does/not/exist"} {
		if _, err := fs.Open(dir); err == nil {
			t.Errorf("Open(%q) succeeded", dir)
		}
	}
}

// TestLostRoot takes the directory away, as an unmount does: nothing is
// written beside it, and callers are told to try again.
func TestLostRoot(t *testing.T) {
	root := filepath.Join(t.TempDir(), "vault")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := fs.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(root); err != nil {
		t.Fatal(err)
	}
	if err := put(t, s, "a/b"); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("Put = %v, want ErrUnavailable", err)
	}
	if err := s.List(t.Context(), "", func(vault.ObjectInfo) error { return nil }); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("List = %v, want ErrUnavailable", err)
	}
	if _, err := os.Stat(root); err == nil {
		t.Error("the vault's directory was made again")
	}
}

func TestNothingTemporaryStays(t *testing.T) {
	root := t.TempDir()
	s, err := fs.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := put(t, s, "a/b/c"); err != nil {
		t.Fatal(err)
	}
	if err := s.PutIfAbsent(t.Context(), "a/b/c", strings.NewReader("y"), 1); !errors.Is(err, vault.ErrExists) {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "a/b/d", failing{strings.NewReader("x")}, 1); err == nil {
		t.Error("Put of a body that fails succeeded")
	}
	if err := s.Delete(t.Context(), "a/b/c"); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(root, "*", "*"))
	dirs, globErr := filepath.Glob(filepath.Join(root, "*"))
	if err = errors.Join(err, globErr); err != nil || len(left) > 0 || len(dirs) > 1 {
		t.Errorf("left %q in %q, %v", left, dirs, err)
	}
	if err := put(t, s, ".davit-tmp/x"); !errors.Is(err, vault.ErrName) {
		t.Errorf("a reserved name: %v", err)
	}
}

func TestStaleTemporariesGo(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, ".davit-tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	old, fresh := filepath.Join(root, ".davit-tmp", "put-old"), filepath.Join(root, ".davit-tmp", "put-fresh")
	long := time.Now().AddDate(0, -1, 0)
	if err := errors.Join(os.WriteFile(old, nil, 0o600), os.WriteFile(fresh, nil, 0o600), os.Chtimes(old, long, long)); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Open(root); err != nil {
		t.Fatal(err)
	}
	_, oldErr := os.Stat(old)
	_, freshErr := os.Stat(fresh)
	if oldErr == nil || freshErr != nil {
		t.Errorf("old: %v, fresh: %v; want the old one gone", oldErr, freshErr)
	}
}

// failing is a body that cannot be read.
type failing struct{ io.ReadSeeker }

func (failing) Read([]byte) (int, error) { return 0, errors.New("cannot read") }

func TestLongName(t *testing.T) {
	s, err := fs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := put(t, s, strings.Repeat("n", 256)); err == nil || errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("a name too long for a file: %v, want an error that is not tried again", err)
	}
}

func TestReadOnly(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write anywhere")
	}
	root := t.TempDir()
	if err := os.Chmod(root, 0o500); err != nil {
		t.Fatal(err)
	}
	s, err := fs.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := put(t, s, "a"); !errors.Is(err, vault.ErrDenied) {
		t.Errorf("Put = %v, want ErrDenied", err)
	}
}
