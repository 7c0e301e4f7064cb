// Package coverage shows what of a cluster is protected, and what is not.
package coverage

import (
	"fmt"
	"strings"

	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/coverage"
)

// shownVolumes bounds the unprotected volumes in a table that is not wide.
const shownVolumes = 20

// View is a report as `coverage` shows it.
type View struct{ *coverage.Report }

// Document is the report.
func (v View) Document() any { return v.Report }

// Text is a line for each namespace, then what is not protected.
func (v View) Text(t *output.Text) {
	volumes, objects := v.Unprotected()
	if volumes+objects == 0 {
		t.Line("Everything is protected.")
	} else {
		t.Line("Not protected: %s, %s.", output.Plural(int64(volumes), "volume"), output.Plural(int64(objects), "object"))
	}
	var rows [][]string
	for _, ns := range v.Namespaces {
		rows = append(rows, []string{
			ns.Name, strings.Join(ns.Applications, ", "),
			part(ns.Volumes-ns.UnprotectedVolumes, ns.Volumes), part(ns.Objects-ns.UnprotectedObjects, ns.Objects),
		})
	}
	t.Section("Namespaces")
	t.Table("", output.Columns("NAME", "APPLICATIONS", ">VOLUMES", ">OBJECTS"), rows)
	if len(v.Deleting) > 0 {
		t.Line("Being deleted, and in no count: %s", strings.Join(v.Deleting, ", "))
	}
	v.volumes(t)
	v.objects(t)
	if len(v.Problems) > 0 {
		t.Section("Applications to look at")
		for _, p := range v.Problems {
			t.Line("%s: %s", p.Application, p.Message)
		}
	}
}

func part(protected, all int) string { return fmt.Sprintf("%d of %d", protected, all) }

func (v View) volumes(t *output.Text) {
	var rows [][]string
	for _, x := range v.Volumes {
		if len(x.Applications) != 1 {
			rows = append(rows, []string{x.Namespace, x.Claim, x.StorageClass, output.Bytes(x.Capacity), by(x.Applications)})
		}
	}
	if len(rows) == 0 {
		return
	}
	t.Section("Volumes of no application, or of several")
	left := 0
	if !t.Wide && len(rows) > shownVolumes {
		left = len(rows) - shownVolumes
		rows = rows[:shownVolumes]
	}
	t.Table("", output.Columns("NAMESPACE", "CLAIM", "CLASS", ">SIZE", "PROTECTED BY"), rows)
	if left > 0 {
		t.Line("and %d more: -o wide shows them", left)
	}
}

// objects are many: only wide tables have them.
func (v View) objects(t *output.Text) {
	if !t.Wide || len(v.Objects) == 0 {
		return
	}
	var rows [][]string
	for _, o := range v.Objects {
		rows = append(rows, []string{o.Namespace, o.Resource, o.Name, by(o.Applications)})
	}
	t.Section("Objects of no application, or of several")
	t.Table("", output.Columns("NAMESPACE", "KIND", "NAME", "PROTECTED BY"), rows)
}

func by(applications []string) string {
	if len(applications) == 0 {
		return "nobody"
	}
	return strings.Join(applications, ", ")
}
