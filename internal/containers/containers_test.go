package containers

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestDecodeNetwork(t *testing.T) {
	for _, tt := range []struct {
		info string
		want Network
		err  bool
	}{
		{info: `{"pid":7,"runtimeSpec":{"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/run/netns/a"}]}}}`, want: Network{Path: "/run/netns/a", PID: 7}},
		{info: `{"pid":7}`, want: Network{PID: 7}},
		{info: `{}`, err: true},
		{info: ``, err: true},
		{info: `{"pid":-1}`, err: true},
	} {
		got, err := decodeNetwork(tt.info)
		if (err != nil) != tt.err || err == nil && got != tt.want || err != nil && !errors.Is(err, ErrNoNetwork) {
			t.Errorf("%s: %+v, %v", tt.info, got, err)
		}
	}
}

func FuzzDecodeNetwork(f *testing.F) {
	f.Add(`{"pid":7,"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":"/x"}]}}}`)
	f.Fuzz(func(t *testing.T, info string) {
		if n, err := decodeNetwork(info); err == nil && n.Path == "" && n.PID <= 0 {
			t.Errorf("%q leads nowhere and is no error", info)
		}
	})
}

func TestRuntimeOfParent(t *testing.T) {
	proc := t.TempDir()
	for line, want := range map[string]string{
		"containerd-shim-runc-v2\x00-namespace\x00k8s.io\x00-id\x00a\x00-address\x00/run/x/containerd.sock\x00": "/run/x/containerd.sock",
		"conmon\x00-c\x00a\x00":    "",
		"x\x00-address\x00":        "",
		"x\x00-address\x00rel\x00": "",
		"":                         "",
	} {
		if err := os.MkdirAll(filepath.Join(proc, "5"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, "5", "cmdline"), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := ofParent(proc, 5); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	if got := ofParent(proc, 6); got != "" {
		t.Errorf("no such process: %q", got)
	}
}
