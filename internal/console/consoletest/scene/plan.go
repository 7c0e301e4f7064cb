package main

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/yaml"

	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/vault"
)

// second writes a plan of which no run is under way.
func second(ctx context.Context, p *vault.Project, now time.Time) error {
	text, err := yaml.YAMLToJSON([]byte(idle))
	if err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	_, err = shelf.New(p).Put(ctx, shelf.Sheet{Plan: "move", At: now.Add(-50 * time.Hour), Site: "west", Document: text})
	return err
}

const idle = `apiVersion: davit.dev/v1alpha1
kind: RecoveryPlan
metadata: {name: move}
spec:
  sites: [{name: west}, {name: east}]
  fence: {timeout: 30s}
  objectives: {rpo: 1h0m0s, rto: 10m0s}
  applications: [{name: wiki}]
`
