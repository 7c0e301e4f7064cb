package machinery

import (
	"context"
	"errors"
	"strings"
	"testing"

	"davit.dev/davit/internal/kube"
)

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: m, cluster: {server: "https://192.0.2.1:6443"}}]
contexts: [{name: m, context: {cluster: m, user: u}}]
current-context: m
users: [{name: u, user: {%}}]
`

// TestOpen: a kubeconfig comes from whoever may write a Secret, and runs or reads
// nothing where davit is.
func TestOpen(t *testing.T) {
	for name, tc := range map[string]struct {
		data map[string][]byte
		err  error
		want string
	}{
		"token":      {data: map[string][]byte{"value": []byte(strings.Replace(kubeconfig, "%", "token: x", 1))}},
		"other key":  {data: map[string][]byte{"kubeconfig": []byte(strings.Replace(kubeconfig, "%", "token: x", 1))}},
		"empty":      {data: map[string][]byte{}, want: "neither value nor kubeconfig"},
		"no config":  {data: map[string][]byte{"value": []byte("{")}, want: "read the kubeconfig in Secret davit-system/management"},
		"program":    {data: map[string][]byte{"value": []byte(strings.Replace(kubeconfig, "%", "exec: {apiVersion: client.authentication.k8s.io/v1, command: sh, interactiveMode: Never}", 1))}, want: "runs a program"},
		"token file": {data: map[string][]byte{"value": []byte(strings.Replace(kubeconfig, "%", "tokenFile: /etc/token", 1))}, want: "names a file"},
		"cert file":  {data: map[string][]byte{"value": []byte(strings.Replace(kubeconfig, "%", "client-certificate: /c, client-key: /k", 1))}, want: "names a file"},
		"no Secret":  {err: errors.New("not found"), want: "not found"},
	} {
		_, err := Open(t.Context(), &kube.Clients{}, func(context.Context, string) (map[string][]byte, error) { return tc.data, tc.err }, "management")
		if (err != nil) != (tc.want != "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
