package obstacle

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/served"
	"davit.dev/davit/internal/restore/shape"
)

// Classes looks whether every storage class that claims name is there, or
// comes with the point. claims counts them by class as at the target, "" for
// the default one.
func (f Finder) Classes(ctx context.Context, claims map[string]int, stored map[string]shape.Document) ([]report.Finding, error) {
	if len(claims) == 0 {
		return nil, nil
	}
	have, standard, err := f.LiveClasses(ctx)
	if err != nil {
		return nil, err
	}
	var found []report.Finding
	for _, to := range slices.Sorted(maps.Keys(claims)) {
		switch {
		case to == "" && standard == "":
			found = append(found, report.Finding{
				Severity: report.Error, Reason: "NoDefaultClass", Remedy: "mark one of " + offered(have) + " as default at the target",
				Message: fmt.Sprintf("%d claims ask for the default storage class, and the target has none", claims[to]),
			})
		case to != "" && have[to] == "" && !broughtAlong(stored[to], have):
			found = append(found, report.Finding{
				Severity: report.Error, Reason: "MissingClass", Remedy: "map it with --map-storage-class " + to + "=" + suggest(have, standard),
				Message: fmt.Sprintf("the target has no storage class %s, which %d claims ask for; it has %s", to, claims[to], offered(have)),
			})
		}
	}
	return found, nil
}

// LiveClasses returns the target's storage classes with their provisioners,
// and the name of the default one.
func (f Finder) LiveClasses(ctx context.Context) (have map[string]string, standard string, err error) {
	at, err := served.First(ctx, f.Cluster, shape.KindClass)
	if err != nil {
		return nil, "", err
	}
	have = map[string]string{}
	err = f.Cluster.List(ctx, at, "", "", func(u *unstructured.Unstructured) error {
		have[u.GetName()] = shape.Text(u.Object, "provisioner")
		if u.GetAnnotations()["storageclass.kubernetes.io/is-default-class"] == "true" {
			standard = u.GetName()
		}
		return nil
	})
	return have, standard, err
}

// broughtAlong tells whether the point holds the class and the target has
// what provisions it, so that creating the class makes it work.
func broughtAlong(class shape.Document, have map[string]string) bool {
	provisioner := shape.Text(class, "provisioner")
	return provisioner != "" && slices.Contains(slices.Collect(maps.Values(have)), provisioner)
}

func offered(have map[string]string) string {
	if len(have) == 0 {
		return "none"
	}
	return shape.Names(slices.Sorted(maps.Keys(have)), 8)
}

func suggest(have map[string]string, standard string) string {
	if standard != "" {
		return standard
	}
	if len(have) == 0 {
		return "<a class, once the target has one>"
	}
	return slices.Sorted(maps.Keys(have))[0]
}
