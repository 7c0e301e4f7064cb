// Package hack_test tries the scripts that a person meets first.
package hack_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWithoutGo: the README's commands say clearly that Go is missing, or too
// old, and change nothing: what they would install with is not there either.
func TestWithoutGo(t *testing.T) {
	for name, tt := range map[string]struct {
		version string // of the Go that is there; "": none
		target  string
		says    string
	}{
		"demo":      {"", "demo", "Davit needs Go 1.26 or newer"},
		"test":      {"", "test", "Davit needs Go 1.26 or newer"},
		"demo-down": {"", "demo-down", "Davit needs Go 1.26 or newer"},
		"image":     {"", "image", "Davit needs Go 1.26 or newer"},
		"where to":  {"", "demo", "https://go.dev/dl/"},
		"old":       {"go1.25.7", "demo", "Go 1.25.7 is too old."},
		"new":       {"go1.27", "demo", "run this as root"}, // the control: it goes on, to a machine without id
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bin := t.TempDir()
			for _, tool := range []string{"bash", "make", "sort", "head", "mkdir"} {
				path, err := exec.LookPath(tool)
				if err != nil {
					t.Skip(err)
				}
				if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
					t.Fatal(err)
				}
			}
			if tt.version != "" {
				script := "#!" + filepath.Join(bin, "bash") + "\necho " + tt.version + "\n"
				if err := os.WriteFile(filepath.Join(bin, "go"), []byte(script), 0o700); err != nil { //nolint:gosec // it is run
					t.Fatal(err)
				}
			}
			cmd := exec.Command(filepath.Join(bin, "make"), "-C", "..", tt.target)
			cmd.Env = []string{"PATH=" + bin, "HOME=" + t.TempDir()}
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), tt.says) {
				t.Errorf("make %s: %v, and it did not say %q:\n%s", tt.target, err, tt.says, out)
			}
		})
	}
}
