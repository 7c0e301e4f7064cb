package runbook

import (
	"fmt"
	"html"
	"strings"
)

// Markdown writes the book for people and for git.
func (b *Book) Markdown() string {
	var w strings.Builder
	fmt.Fprintf(&w, "# %s\n", plain(b.Title))
	for _, line := range b.Intro {
		fmt.Fprintf(&w, "\n%s\n", plain(line))
	}
	for _, s := range b.Sections {
		fmt.Fprintf(&w, "\n## %s\n", plain(s.Title))
		for _, line := range s.Text {
			fmt.Fprintf(&w, "\n- %s\n", plain(line))
		}
		for _, i := range s.Items {
			fmt.Fprintf(&w, "\n### %s\n", plain(i.Title))
			if i.Why != "" {
				fmt.Fprintf(&w, "\n%s\n", plain(i.Why))
			}
			if len(i.Commands) > 0 {
				fmt.Fprintf(&w, "\n```sh\n%s\n```\n", strings.ReplaceAll(strings.Join(i.Commands, "\n"), "```", "'''"))
			}
			fmt.Fprintf(&w, "\n- [ ] You see: %s\n- If not: %s\n", plain(i.See), plain(i.Otherwise))
		}
	}
	return w.String()
}

// plain keeps what a plan says on one line, and from being markup.
func plain(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.NewReplacer("<", "&lt;", "`", "'", "[", "\\[").Replace(s)
}

const style = `body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#111;background:#fff}
pre{background:#f2f2f2;padding:.7em;overflow-x:auto}h3{border-top:1px solid #ccc;padding-top:.7em}label{display:block}
@media print{pre{white-space:pre-wrap}}`

// HTML writes the book as one page that needs nothing else.
func (b *Book) HTML() string {
	var w strings.Builder
	e := html.EscapeString
	fmt.Fprintf(&w, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>%s</title><style>%s</style></head><body>\n<h1>%s</h1>\n", e(b.Title), style, e(b.Title))
	for _, line := range b.Intro {
		fmt.Fprintf(&w, "<p>%s</p>\n", e(line))
	}
	for _, s := range b.Sections {
		fmt.Fprintf(&w, "<h2>%s</h2>\n", e(s.Title))
		if len(s.Text) > 0 {
			w.WriteString("<ul>\n")
			for _, line := range s.Text {
				fmt.Fprintf(&w, "<li>%s</li>\n", e(line))
			}
			w.WriteString("</ul>\n")
		}
		for _, i := range s.Items {
			fmt.Fprintf(&w, "<h3>%s</h3>\n", e(i.Title))
			if i.Why != "" {
				fmt.Fprintf(&w, "<p>%s</p>\n", e(i.Why))
			}
			if len(i.Commands) > 0 {
				fmt.Fprintf(&w, "<pre>%s</pre>\n", e(strings.Join(i.Commands, "\n")))
			}
			fmt.Fprintf(&w, "<label><input type=\"checkbox\"> You see: %s</label>\n<p>If not: %s</p>\n", e(i.See), e(i.Otherwise))
		}
	}
	w.WriteString("</body></html>\n")
	return w.String()
}
