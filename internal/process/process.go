// Package process holds what Davit's long-lived processes start with: their
// logger, the kinds they know and the way into their cluster.
package process

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
)

// Logger makes the process's logger, lines of JSON, and hands it to the
// libraries that log by themselves. level is debug, info, warn or error.
func Logger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: want debug, info, warn or error", level)
	}
	handler := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l})
	bridged := logr.FromSlogHandler(handler)
	ctrl.SetLogger(bridged)
	klog.SetLogger(bridged)
	return slog.New(handler), nil
}

// Scheme knows the kinds of Kubernetes and of Davit.
func Scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil { // kinds compiled in always register
			panic(err)
		}
	}
	return s
}

// Config is the way into the cluster: that of a kubeconfig file if one is
// named, else of the pod's service account.
func Config(kubeconfig string) (*rest.Config, error) {
	open := kube.InCluster
	if kubeconfig != "" {
		open = func() (*kube.Clients, error) { return kube.Kubeconfig(kubeconfig, "") }
	}
	clients, err := open()
	if err != nil {
		return nil, err
	}
	return clients.RESTConfig, nil
}

// Hold waits until ctx is done: a holder pod does nothing else. It says on w
// what it is there for.
func Hold(ctx context.Context, w io.Writer) error {
	fmt.Fprintln(w, "holding the volume for the davit node process of", hostname())
	<-ctx.Done()
	return nil
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "this pod"
	}
	return name
}
