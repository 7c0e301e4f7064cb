package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Tool builds a command of a nested module below testbed/ on each call (the Go build cache makes that cheap)
// and returns where it is.
func Tool(ctx context.Context, module, name string, log io.Writer) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	src, err := SourceDir()
	if err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(cache, "bin"))
	if err != nil {
		return "", err
	}
	defer unlock()
	// Each checkout has its own: another's may know other flags, and replace it before it is run.
	sum := sha256.Sum256([]byte(src))
	dir := filepath.Join(cache, "bin", "tools-"+hex.EncodeToString(sum[:4]))
	start := time.Now()
	b := binary{name: name, module: module, pkg: "./cmd/" + name}
	if err := b.build(ctx, src, dir, io.Discard); err != nil {
		return "", err
	}
	if took := time.Since(start); took > 5*time.Second {
		fmt.Fprintf(log, "built %s in %s\n", name, took.Round(time.Second))
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return path, nil
}
