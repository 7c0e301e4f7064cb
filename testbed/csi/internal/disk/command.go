// Package disk does what the driver needs from the kernel: loop devices, file systems, mounts, freezing and cloning.
package disk

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// commandLimit bounds every external tool: a hung mkfs must not hold a volume's lock for ever.
const commandLimit = 2 * time.Minute

// searchPath is set for every tool, because a container's environment seldom names the sbin directories.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// run executes a tool of the host and returns its output inside the error, where the cause is.
func run(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	path, err := lookTool(name)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), searchPath, "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// lookTool searches the host's directories itself: exec.LookPath would use the container's PATH.
func lookTool(name string) (string, error) {
	_, dirs, _ := strings.Cut(searchPath, "=")
	for dir := range strings.SplitSeq(dirs, ":") {
		path := dir + "/" + name
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s on the host: not in %s; install xfsprogs, e2fsprogs and mount", name, dirs)
}
