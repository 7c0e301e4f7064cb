package view

import "davit.dev/davit/internal/cli/output"

// Versions say which davit this is.
type Versions struct {
	Davit       string `json:"davit"`
	VaultFormat int    `json:"vaultFormat"`
	Go          string `json:"go"`
	Platform    string `json:"platform"`
}

// Text is one line.
func (v Versions) Text(t *output.Text) {
	t.Line("davit %s (vault format %d, %s, %s)", v.Davit, v.VaultFormat, v.Go, v.Platform)
}

// Document is all of it.
func (v Versions) Document() any { return v }
