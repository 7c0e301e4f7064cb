// Package k8s pins, through its own go.mod, the Kubernetes and etcd commands that the test bed builds from source.
// It is a module of its own so that neither the product nor the test bed depends on k8s.io/kubernetes.
package k8s
