package apps

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// lighthouse is the bed's own operator: see its program.
var lighthouse = App{
	Name: "lighthouse", Images: []string{"app-lighthouse"},
	Loaded:      "3 Beacons, each with a Lamp of a generated name, that with a StatefulSet, that with a file on a volume",
	workloads:   []string{"deployment/lighthouse"},
	established: []string{"beacons.lighthouse.example.com", "lamps.lighthouse.example.com"},
	held:        []string{"beacons.lighthouse.example.com"},
	cluster: []string{
		"validatingwebhookconfiguration/lighthouse.example.com", "crd/beacons.lighthouse.example.com", "crd/lamps.lighthouse.example.com",
		"clusterrole/lighthouse-trust", "clusterrolebinding/lighthouse-trust",
	},
	load: loadLighthouse, check: checkLighthouse,
}

const beacon = "{apiVersion: lighthouse.example.com/v1, kind: Beacon, metadata: {name: %s}, spec: {colour: %s, height: %d}}"

var colours = []string{"red", "green", "white"}

func loadLighthouse(ctx context.Context, p Place) (any, error) {
	lamps := map[string]string{}
	for i, colour := range colours {
		// The webhook's configuration reaches the API server's admission a moment after the operator is ready.
		err := until(ctx, func(ctx context.Context) error {
			_, err := p.run(ctx, fmt.Sprintf(beacon, colour, colour, 10*i), "apply", "-f", "-")
			return err
		})
		if err != nil {
			return nil, err
		}
		lamp, err := litLamp(ctx, p, colour)
		if err != nil {
			return nil, err
		}
		lamps[colour] = lamp
		if _, err := p.sh(ctx, lamp+"-0", "echo "+colour+" > /data/colour && sync"); err != nil {
			return nil, err
		}
	}
	return lamps, guarded(ctx, p)
}

// litLamp waits until a Beacon has a Lamp whose StatefulSet runs, and returns its name.
func litLamp(ctx context.Context, p Place, name string) (string, error) {
	var lamp string
	err := until(ctx, func(ctx context.Context) (err error) {
		lamp, err = p.run(ctx, "", "get", "beacon", name, "-o", "jsonpath={.status.lamp}")
		if err != nil || lamp == "" {
			return errors.Join(err, fmt.Errorf("beacon %s has no lamp", name))
		}
		ready, err := p.run(ctx, "", "get", "statefulset", lamp, "-o", "jsonpath={.status.readyReplicas}")
		if err != nil || ready != "1" {
			return errors.Join(err, fmt.Errorf("lamp %s of beacon %s has %q replicas ready", lamp, name, ready))
		}
		return nil
	})
	return lamp, err
}

// guarded makes sure that the webhook is asked: it refuses what it must.
func guarded(ctx context.Context, p Place) error {
	return until(ctx, func(ctx context.Context) error {
		for _, bad := range []struct{ yaml, why string }{
			{fmt.Sprintf(beacon, "dark", "black", 1), "a colour that shows"},
			{fmt.Sprintf(beacon, "red", "blue", 1), "keeps its colour"},
			{"{apiVersion: lighthouse.example.com/v1, kind: Lamp, metadata: {name: stray}}", "made by the operator"},
		} {
			_, err := p.run(ctx, bad.yaml, "apply", "--dry-run=server", "-f", "-")
			if err == nil || !strings.Contains(err.Error(), bad.why) {
				return fmt.Errorf("the webhook should refuse %s, but: %w", bad.yaml, errors.Join(err, errors.New("")))
			}
		}
		return nil
	})
}

func checkLighthouse(ctx context.Context, p Place, known any) error {
	lamps, _ := known.(map[string]string)
	for _, colour := range colours {
		if err := checkBeacon(ctx, p, colour, lamps[colour]); err != nil {
			return err
		}
	}
	// One too many would be a lamp that the operator did not know for its own.
	got, err := p.run(ctx, "", "get", "lamps,statefulsets", "-o", "name")
	if n := len(strings.Fields(got)); err != nil || n != 2*len(colours) {
		return errors.Join(err, fmt.Errorf("there are %d lamps and StatefulSets, want %d: %s", n, 2*len(colours), got))
	}
	return inTurn(
		func() error { return guarded(ctx, p) },
		func() error {
			_, err := p.run(ctx, fmt.Sprintf(beacon, "after", "restore", 1), "apply", "-f", "-")
			return err
		},
		func() error { _, err := litLamp(ctx, p, "after"); return err },
		func() error { _, err := p.run(ctx, "", "delete", "beacon", "after", "--timeout=60s"); return err },
		func() error { _, err := p.run(ctx, "", "get", "configmap", "put-out-after"); return err },
	)
}

// checkBeacon checks one chain from the Beacon down to its file.
func checkBeacon(ctx context.Context, p Place, name, lamp string) error {
	now, err := litLamp(ctx, p, name)
	if err != nil {
		return err
	}
	if now != lamp {
		return fmt.Errorf("beacon %s has the lamp %s, want %s", name, now, lamp)
	}
	for _, link := range [][2]string{{"beacon/" + name, "lamp/" + lamp}, {"lamp/" + lamp, "statefulset/" + lamp}} {
		uid, err := p.run(ctx, "", "get", link[0], "-o", "jsonpath={.metadata.uid}")
		if err != nil {
			return err
		}
		of, err := p.run(ctx, "", "get", link[1], "-o", "jsonpath={.metadata.ownerReferences[0].uid}")
		if err != nil || of != uid {
			return errors.Join(err, fmt.Errorf("%s is owned by %q, want %s, which is %s", link[1], of, uid, link[0]))
		}
	}
	held, err := p.run(ctx, "", "get", "beacon", name, "-o", "jsonpath={.metadata.finalizers}")
	if err != nil || !strings.Contains(held, "put-out") {
		return errors.Join(err, fmt.Errorf("beacon %s has the finalizers %q", name, held))
	}
	return p.expect(ctx, "file of "+lamp, lamp+"-0", "cat /data/colour", name)
}
