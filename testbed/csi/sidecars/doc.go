// Package sidecars pins, through its own go.mod, the standard CSI sidecars that the test bed builds from source.
// It is a module of its own so that their Kubernetes version binds neither the driver nor the bed.
package sidecars
