package remote

import (
	"context"
	"fmt"
	"strings"

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
	return compareLines(linesOf(old), linesOf(wanted)), err
}

// said is what a person says in an object, without what the console itself keeps.
func said(o api.Object) (string, error) {
	m := api.Metadata{Name: o.Metadata.Name, Namespace: o.Metadata.Namespace, Labels: o.Metadata.Labels, Annotations: o.Metadata.Annotations}
	text, err := yaml.Marshal(api.Object{APIVersion: o.APIVersion, Kind: o.Kind, Metadata: m, Spec: o.Spec})
	return string(text), err
}

func linesOf(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
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

// maxTable bounds the work on what differs: beyond that all of it is shown as
// removed and added.
const maxTable = 16 << 20

// compareLines is a unified comparison, its parts headed by where they are.
func compareLines(old, now []string) []string {
	steps := align(old, now)
	var out []string
	for i := 0; i < len(steps); i++ {
		if steps[i].sign == ' ' {
			continue
		}
		from := max(i-around, 0)
		to, last := i, i
		for to < len(steps) && to-last <= 2*around {
			if steps[to].sign != ' ' {
				last = to
			}
			to++
		}
		to = min(last+around+1, len(steps))
		out = append(out, fmt.Sprintf("@@ -%d +%d @@", steps[from].old+1, steps[from].now+1))
		for _, s := range steps[from:to] {
			out = append(out, string(s.sign)+s.text)
		}
		i = to - 1
	}
	return out
}

// step is a line that both have (' '), that only the old one ('-') or only the new
// one has ('+'), and where it is in each.
type step struct {
	sign     byte
	text     string
	old, now int
}

// align finds the fewest lines to remove and to add.
func align(old, now []string) []step {
	head := 0
	for head < len(old) && head < len(now) && old[head] == now[head] {
		head++
	}
	tail := 0
	for tail < len(old)-head && tail < len(now)-head && old[len(old)-1-tail] == now[len(now)-1-tail] {
		tail++
	}
	var steps []step
	add := func(sign byte, text string, i, j int) { steps = append(steps, step{sign, text, i, j}) }
	for i := range head {
		add(' ', old[i], i, i)
	}
	common := longest(old[head:len(old)-tail], now[head:len(now)-tail])
	i, j := head, head
	for i < len(old)-tail || j < len(now)-tail {
		switch {
		case i < len(old)-tail && j < len(now)-tail && common.both(i-head, j-head):
			add(' ', old[i], i, j)
			i++
			j++
		case i < len(old)-tail && common.drop(i-head, j-head):
			add('-', old[i], i, j)
			i++
		case j < len(now)-tail:
			add('+', now[j], i, j)
			j++
		default:
			add('-', old[i], i, j)
			i++
		}
	}
	for ; i < len(old); i++ {
		add(' ', old[i], i, j)
		j++
	}
	return steps
}

// table holds for each pair of places how many lines may be kept after them; nil
// where it would be too large.
type table struct {
	old, now []string
	kept     [][]int32
}

func longest(old, now []string) table {
	t := table{old: old, now: now}
	if len(old)*len(now) > maxTable {
		return t
	}
	t.kept = make([][]int32, len(old)+1)
	for i := range t.kept {
		t.kept[i] = make([]int32, len(now)+1)
	}
	for i := len(old) - 1; i >= 0; i-- {
		for j := len(now) - 1; j >= 0; j-- {
			if old[i] == now[j] {
				t.kept[i][j] = t.kept[i+1][j+1] + 1
			} else {
				t.kept[i][j] = max(t.kept[i+1][j], t.kept[i][j+1])
			}
		}
	}
	return t
}

func (t table) both(i, j int) bool { return t.kept != nil && t.old[i] == t.now[j] }

// drop tells whether to remove the old line first.
func (t table) drop(i, j int) bool {
	return t.kept == nil || j >= len(t.now) || i < len(t.old) && t.kept[i+1][j] >= t.kept[i][j+1]
}
