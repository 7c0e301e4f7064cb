package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

const (
	group     = "lighthouse.example.com"
	version   = "v1"
	finalizer = group + "/put-out"
)

// reconcile makes the world as the Beacons want it. One that cannot be served does not hold up the others.
func (c *cluster) reconcile(ctx context.Context) error {
	beacons, err := c.get(ctx, c.path(group, version, "beacons"))
	if err != nil {
		return err
	}
	lamps, err := c.get(ctx, c.path(group, version, "lamps"))
	if err != nil {
		return err
	}
	var errs []error
	for _, b := range items(beacons) {
		if err := c.beacon(ctx, b, items(lamps)); err != nil {
			errs = append(errs, fmt.Errorf("beacon %s: %w", text(b, "metadata", "name"), err))
		}
	}
	for _, l := range items(lamps) {
		if err := c.lamp(ctx, l); err != nil {
			errs = append(errs, fmt.Errorf("lamp %s: %w", text(l, "metadata", "name"), err))
		}
	}
	return errors.Join(errs...)
}

// beacon gives a Beacon its finalizer and its one Lamp, or lets it go.
func (c *cluster) beacon(ctx context.Context, b object, lamps []object) error {
	path := c.path(group, version, "beacons", text(b, "metadata", "name"))
	kept, _ := at(b, "metadata", "finalizers").([]any)
	held := slices.Contains(kept, any(finalizer))
	if text(b, "metadata", "deletionTimestamp") != "" {
		if !held {
			return nil
		}
		return c.putOut(ctx, b, path, kept)
	}
	if !held {
		return c.merge(ctx, path, object{"metadata": object{"finalizers": append(kept, finalizer)}})
	}
	var own []string
	for _, l := range lamps {
		if ownedBy(l, b) {
			own = append(own, text(l, "metadata", "name"))
		}
	}
	if len(own) == 0 {
		_, err := c.create(ctx, c.path(group, version, "lamps"), object{
			"apiVersion": group + "/" + version, "kind": "Lamp",
			"metadata": object{"generateName": text(b, "metadata", "name") + "-", "ownerReferences": owner(b)},
			"spec":     object{"colour": text(b, "spec", "colour")},
		})
		return err
	}
	want := object{"lamps": float64(len(own)), "lamp": own[0]}
	if have, _ := b["status"].(map[string]any); have["lamp"] == want["lamp"] && have["lamps"] == want["lamps"] {
		return nil
	}
	return c.merge(ctx, path+"/status", object{"status": want})
}

// putOut notes that the Beacon went, which only this operator can, and lets it go.
func (c *cluster) putOut(ctx context.Context, b object, path string, kept []any) error {
	name := text(b, "metadata", "name")
	_, err := c.create(ctx, c.path("", "v1", "configmaps"), object{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "put-out-" + name},
	})
	if err != nil && !isCode(err, http.StatusConflict) {
		return err
	}
	left := slices.DeleteFunc(kept, func(f any) bool { return f == finalizer })
	return c.merge(ctx, path, object{"metadata": object{"finalizers": left}})
}

// lamp gives a Lamp its StatefulSet.
func (c *cluster) lamp(ctx context.Context, l object) error {
	if text(l, "metadata", "deletionTimestamp") != "" {
		return nil
	}
	name := text(l, "metadata", "name")
	labels := object{"app": "lamp", "lamp": name}
	_, err := c.get(ctx, c.path("apps", "v1", "statefulsets", name))
	if !isCode(err, http.StatusNotFound) {
		return err
	}
	image := imageOf()
	_, err = c.create(ctx, c.path("apps", "v1", "statefulsets"), object{
		"apiVersion": "apps/v1", "kind": "StatefulSet",
		"metadata": object{"name": name, "labels": labels, "ownerReferences": owner(l)},
		"spec": object{
			"serviceName": "lamps", "replicas": 1, "selector": object{"matchLabels": labels},
			"template": object{
				"metadata": object{"labels": labels},
				"spec": object{"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "containers": []any{object{
					"name": "lamp", "image": image, "imagePullPolicy": "IfNotPresent",
					"command":      []any{"sh", "-c", "trap exit TERM; sleep 1000000 & wait"},
					"volumeMounts": []any{object{"name": "data", "mountPath": "/data"}},
				}}},
			},
			"volumeClaimTemplates": []any{object{
				"metadata": object{"name": "data"},
				"spec": object{
					"accessModes": []any{"ReadWriteOnce"},
					"resources":   object{"requests": object{"storage": "64Mi"}},
				},
			}},
		},
	})
	return err
}

// owner is a reference to the controlling owner.
func owner(o object) []any {
	return []any{object{
		"apiVersion": group + "/" + version, "kind": text(o, "kind"), "controller": true, "blockOwnerDeletion": true,
		"name": text(o, "metadata", "name"), "uid": text(o, "metadata", "uid"),
	}}
}

// ownedBy tells whether one object's controller is another, which only the UID says for sure.
func ownedBy(o, by object) bool {
	refs, _ := at(o, "metadata", "ownerReferences").([]any)
	return slices.ContainsFunc(refs, func(r any) bool {
		ref, _ := r.(map[string]any)
		return text(ref, "uid") == text(by, "metadata", "uid") && strings.HasPrefix(text(ref, "apiVersion"), group+"/")
	})
}
