// Package config holds the documents that are part of Davit: the generated
// CRDs and the alert rules.
package config

import "embed"

// Files holds crd/*.yaml, one CRD each, and alerts.yaml, rules in Prometheus's
// own format.
//
//go:embed crd/*.yaml alerts.yaml
var Files embed.FS
