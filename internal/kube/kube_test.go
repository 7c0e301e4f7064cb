package kube

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whoever named a kubeconfig that is not there is told which.
func TestKubeconfigNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	empty, whole := filepath.Join(dir, "empty"), filepath.Join(dir, "whole")
	for file, text := range map[string]string{empty: "", whole: `apiVersion: v1
kind: Config
current-context: a
contexts: [{name: a, context: {cluster: a}}]
clusters: [{name: a, cluster: {server: "https://192.0.2.1"}}]
`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	none, list := filepath.Join(dir, "none"), string(os.PathListSeparator)
	for _, tc := range []struct{ path, variable, want string }{
		{"", whole, ""},
		{"", none + list + whole, ""},
		{whole, none, ""},
		{"", none, "KUBECONFIG names " + none + ", and there is no such file"},
		{"", none + list + none + "2", none + ", " + none + "2"},
		{"", empty, "KUBECONFIG names " + empty + ", which says no cluster"},
		{none, whole, "there is no file " + none},
	} {
		t.Setenv("KUBECONFIG", tc.variable)
		_, err := Kubeconfig(tc.path, "")
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "set KUBECONFIG")) {
			t.Errorf("--kubeconfig %q, KUBECONFIG %q: %v, want %q", tc.path, tc.variable, err, tc.want)
		}
	}
	t.Setenv("KUBECONFIG", whole)
	if _, err := Kubeconfig("", "nosuch"); err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("a context that is not there: %v", err)
	}
}
