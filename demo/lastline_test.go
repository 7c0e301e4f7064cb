package main

import (
	"bytes"
	"io"
	"testing"
)

func TestLastLine(t *testing.T) {
	var log bytes.Buffer
	l := &lastLine{to: &log}
	for _, step := range []struct{ write, want string }{
		{"", ""},
		{"building kube", ""},
		{"let\n", "building kubelet"},
		{"one\ntwo\nthr", "two"},
		{"ee\n\n", "three"},
	} {
		if _, err := io.WriteString(l, step.write); err != nil {
			t.Fatal(err)
		}
		if got := l.Line(); got != step.want {
			t.Errorf("after %q the last line is %q, want %q", step.write, got, step.want)
		}
	}
	l.Begin("next")
	if got := l.Line(); got != "" {
		t.Errorf("what was said in the step before is shown in the next: %q", got)
	}
	if got := log.String(); got != "building kubelet\none\ntwo\nthree\n\n\n== next\n" {
		t.Errorf("the log got %q", got)
	}
}
