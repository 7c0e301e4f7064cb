package remote

import (
	"context"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/console/api"
)

func diffCommand(h Host) *cobra.Command {
	var files []string
	var project string
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Compare files with the documents at a console",
		Long: `Says what "davit apply" of the same files would change at a console, line by line, with the defaults that the console fills in.
Ends with 0 if that is nothing, and with 4 if something differs. It changes nothing.`,
		Example: `  davit --console https://console.example.com:8443 diff -f policies/`,
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := h.Looking(cmd)
			defer cancel()
			all, err := h.read(files)
			if err != nil {
				return err
			}
			s, err := h.working(project)
			if err != nil {
				return err
			}
			defer s.Close()
			return h.diff(ctx, s, all)
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file, directory or - (standard input) to compare; may be given again")
	projectFlag(cmd.Flags(), &project)
	return cmd
}

func (h Host) diff(ctx context.Context, s *session, all []given) error {
	var d Differences
	for _, g := range all {
		c, err := s.compare(ctx, g)
		if err != nil {
			return h.explain(err)
		}
		if c.action() == unchanged {
			continue
		}
		one := Difference{Name: c.String(), Namespace: c.namespace, Action: c.action()}
		if one.Lines, err = c.lines(); err != nil {
			return err
		}
		d = append(d, one)
	}
	if err := h.Print(d); err != nil {
		return err
	}
	if len(d) > 0 {
		return exit.Quietly(exit.Warnings)
	}
	return nil
}

// lines compares what is there with what would be.
func (c change) lines() ([]string, error) {
	old := ""
	var err error
	if c.there {
		if old, err = said(c.old); err != nil {
			return nil, err
		}
	}
	wanted, err := said(c.wanted)
	return compare(old, wanted), err
}

// said is what a person says in an object, without what the console itself keeps.
func said(o api.Object) (string, error) {
	m := api.Metadata{Name: o.Metadata.Name, Namespace: o.Metadata.Namespace, Labels: o.Metadata.Labels, Annotations: o.Metadata.Annotations}
	text, err := yaml.Marshal(api.Object{APIVersion: o.APIVersion, Kind: o.Kind, Metadata: m, Spec: o.Spec})
	return string(text), err
}

// Difference is what differs in one document.
type Difference struct {
	Name      string   `json:"name"`
	Namespace string   `json:"namespace,omitempty"`
	Action    string   `json:"action"` // what apply would say
	Lines     []string `json:"lines"`  // beginning with "+", "-" or " "
}

// Differences are those of all documents.
type Differences []Difference

// Document implements output.Result.
func (d Differences) Document() any {
	return map[string]any{"items": append([]Difference{}, d...)}
}

// Text implements output.Result.
func (d Differences) Text(t *output.Text) {
	for _, one := range d {
		t.Line("--- %s at the console", one.Name)
		t.Line("+++ %s in the file", one.Name)
		for _, line := range one.Lines {
			t.Line("%s", line)
		}
	}
}

// Names implements output.Named.
func (d Differences) Names() []string {
	var all []string
	for _, one := range d {
		all = append(all, one.Name)
	}
	return all
}

// around is how many lines are shown around a change.
const around = 3

// compare is a unified comparison by lines, its parts headed by where they are.
func compare(old, now string) []string {
	text, _ := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{ // a string takes all that is written
		A: slices.Collect(strings.Lines(old)), B: slices.Collect(strings.Lines(now)), Context: around,
	})
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}
