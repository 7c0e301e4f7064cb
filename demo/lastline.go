package main

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// lastLine passes a log on and remembers its last whole line, so that a person
// who waits for a long step sees what it is at.
type lastLine struct {
	to io.Writer

	mu   sync.Mutex
	part []byte // the line that has not ended yet
	line string
}

// Write implements io.Writer.
func (l *lastLine) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.part = append(l.part, p...)
	if end := bytes.LastIndexByte(l.part, '\n'); end >= 0 {
		whole := bytes.TrimSpace(l.part[:end])
		l.line = string(whole[bytes.LastIndexByte(whole, '\n')+1:])
		l.part = l.part[end+1:]
	}
	l.mu.Unlock()
	return l.to.Write(p)
}

// Begin writes a heading, below which nothing was said yet.
func (l *lastLine) Begin(heading string) {
	l.mu.Lock()
	l.part, l.line = nil, ""
	l.mu.Unlock()
	_, _ = io.WriteString(l.to, "\n== "+heading+"\n")
}

// Line returns the last line that said anything.
func (l *lastLine) Line() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(l.line)
}
