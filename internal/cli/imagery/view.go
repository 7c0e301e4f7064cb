package imagery

import (
	"fmt"
	"slices"

	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/images"
)

// Image is where one image can be had.
type Image struct {
	Image    string `json:"image"`
	Digest   string `json:"digest,omitempty"`
	Nodes    int    `json:"nodes"`
	Registry string `json:"registry"`
	Mirror   string `json:"mirror,omitempty"`
	Safe     bool   `json:"safe"` // every node has it, or a registry does
	Why      string `json:"why,omitempty"`
}

// Found is what `images` found.
type Found struct {
	Application string  `json:"application"`
	Point       string  `json:"point"`
	Nodes       int     `json:"nodes"`
	Mirror      string  `json:"mirror,omitempty"`
	Images      []Image `json:"images"`
}

func (f *Found) add(w images.Where) {
	f.Images = append(f.Images, Image{
		Image: w.Reference, Digest: w.Digest, Nodes: w.Nodes, Registry: string(w.Registry), Mirror: string(w.Mirror),
		Safe: w.Safe(f.Nodes), Why: w.Why,
	})
}

func (f Found) missing() int {
	n := 0
	for _, i := range f.Images {
		if !i.Safe {
			n++
		}
	}
	return n
}

// Document implements output.Result.
func (f Found) Document() any { return f }

// Text implements output.Result.
func (f Found) Text(t *output.Text) {
	if len(f.Images) == 0 {
		t.Line("Recovery point %s names no images.", f.Point)
		return
	}
	columns := []string{"IMAGE", "NODES", "REGISTRY"}
	if f.Mirror != "" {
		columns = append(columns, "MIRROR")
	}
	var rows [][]string
	for _, i := range f.Images {
		row := []string{i.Image, fmt.Sprintf("%d of %d", i.Nodes, f.Nodes), i.Registry}
		if f.Mirror != "" {
			row = append(row, i.Mirror)
		}
		rows = append(rows, row)
	}
	t.Table("", output.Columns(columns...), rows)
	for _, i := range f.Images {
		if !i.Safe {
			t.Line("")
			t.Line("%s can be had nowhere that survives: %s", i.Image, i.Why)
		}
	}
	if n := f.missing(); n > 0 {
		t.Line("")
		t.Line("%s of %d cannot be had at this site when it takes over. Copy with `images mirror`, or load onto its nodes.",
			output.Plural(int64(n), "image"), len(f.Images))
	}
}

// What became of an image.
const (
	Done   = "copied"
	There  = "there already"
	Would  = "would be copied"
	Failed = "failed"
)

// Copy is what became of one image.
type Copy struct {
	Image  string `json:"image"`
	Digest string `json:"digest,omitempty"`
	Copy   string `json:"copy,omitempty"`
	State  string `json:"state"`
	Why    string `json:"why,omitempty"`
}

// Copied is what `images mirror` did.
type Copied struct {
	Application string `json:"application"`
	Point       string `json:"point"`
	Mirror      string `json:"mirror"`
	DryRun      bool   `json:"dryRun,omitempty"`
	Images      []Copy `json:"images"`
}

func (c Copied) failed() int {
	n := 0
	for _, i := range c.Images {
		if i.State == Failed {
			n++
		}
	}
	return n
}

// mapping is what container runtimes must be told to use the copies.
func (c Copied) mapping() []string {
	var pairs []string
	for _, i := range c.Images {
		if registry, err := images.Registry(i.Image); err == nil && i.State != Failed {
			pairs = append(pairs, registry+" -> "+images.Prefix(c.Mirror, registry))
		}
	}
	slices.Sort(pairs)
	return slices.Compact(pairs)
}

// Document implements output.Result.
func (c Copied) Document() any { return c }

// Text implements output.Result.
func (c Copied) Text(t *output.Text) {
	var rows [][]string
	for _, i := range c.Images {
		rows = append(rows, []string{i.Image, i.State, i.Copy, i.Why})
	}
	t.Table("", output.Columns("IMAGE", "STATE", "COPY", "WHY"), rows)
	if pairs := c.mapping(); len(pairs) > 0 {
		t.Line("")
		t.Line("Pods use the copies when the nodes' container runtime has these mirrors:")
		for _, pair := range pairs {
			t.Line("  %s", pair)
		}
	}
}
