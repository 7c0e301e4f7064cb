package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// suite is the Debian release the packages come from.
const suite = "bookworm"

//go:embed files
var files embed.FS

// recipe says what an image is made of; its hash is the cache key.
type recipe struct {
	name     string
	variant  string   // of mmdebstrap
	packages []string // none: no Debian underneath
	hooks    []string // further options of mmdebstrap
	scripts  []string // below files/, installed into /usr/local/bin
	program  string   // a module below testbed/, built and installed into /usr/local/bin
	config   v1.Config
}

// postgresUID is the same in every build, because files on volumes carry it from site to site.
const postgresUID = "999"

// slim drops what nothing in a container reads.
const slim = `--customize-hook=rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale "$1"/var/cache/debconf "$1"/var/log/*`

var recipes = slices.Concat(shop, applications, peers)

// shop is what the shop runs on.
var shop = []recipe{
	{
		name:    "shop-db",
		variant: "minbase",
		// postgresql-15 contains contrib and pg_amcheck.
		packages: []string{"postgresql-15", "postgresql-client-15"},
		hooks: []string{
			// No useradd yet at this point, but the package takes the account it finds.
			`--essential-hook=echo postgres:x:` + postgresUID + `: >> "$1"/etc/group`,
			`--essential-hook=echo postgres:x:` + postgresUID + `:` + postgresUID + `::/var/lib/postgresql:/bin/bash >> "$1"/etc/passwd`,
			// The cluster that the package makes at once would only be dead weight.
			`--customize-hook=rm -rf "$1"/var/lib/postgresql/15 "$1"/etc/postgresql/15`,
			slim,
		},
		scripts: []string{"shop-db"},
		config: v1.Config{
			Entrypoint: []string{"/usr/local/bin/shop-db"},
			Env: []string{
				"PATH=/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/bin:/bin:/usr/sbin:/sbin",
				"PGDATA=/var/lib/postgresql/data/pgdata", "PGHOST=/tmp", "LANG=C.UTF-8",
			},
			ExposedPorts: map[string]struct{}{"5432/tcp": {}},
			// SIGTERM would wait until every client has gone; SIGINT ends the sessions and shuts down cleanly.
			StopSignal: "SIGINT",
			User:       postgresUID + ":" + postgresUID,
		},
	},
	{
		name:    "shop-app",
		program: "shop",
		config: v1.Config{
			Entrypoint: []string{"/usr/local/bin/shop"},
			User:       "65532:65532",
		},
	},
	{
		name:     "bedtool",
		variant:  "extract",
		packages: []string{"busybox-static"},
		hooks: []string{
			`--extract-hook=mkdir -p "$1"/tmp "$1"/root && chmod 1777 "$1"/tmp && chroot "$1" /bin/busybox --install -s /bin`,
			`--extract-hook=rm -rf "$1"/usr/share/doc "$1"/etc/resolv.conf "$1"/etc/hostname`,
		},
		config: v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"/bin/sh"}},
	},
}

// key hashes everything the image depends on, except for the state of Debian's archive.
func (r recipe) key(source string) (string, error) {
	sum := sha256.New()
	config, err := json.Marshal(r.config)
	if err != nil {
		return "", err
	}
	fmt.Fprintln(sum, suite, runtime.GOARCH, r.variant, r.packages, r.hooks, string(config))
	for _, script := range r.scripts {
		data, err := files.ReadFile("files/" + script)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(sum, script, len(data), string(data))
	}
	if r.program != "" {
		fmt.Fprintln(sum, runtime.Version())
		if err := hashModule(sum, filepath.Join(source, r.program)); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}

func hashModule(sum io.Writer, root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name := filepath.Base(path)
		isSource := filepath.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go") || name == "go.mod" || name == "go.sum"
		if err != nil || entry.IsDir() || !isSource {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		fmt.Fprintln(sum, rel, len(data), string(data))
		return err
	})
}

// debootstrap makes a root file system of Debian packages.
func (r recipe) debootstrap(ctx context.Context, path string, progress io.Writer) error {
	args := slices.Concat([]string{"--quiet", "--variant=" + r.variant, "--include=" + strings.Join(r.packages, ",")},
		r.hooks, []string{suite, path})
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	// One time for all files, so that the same packages give the same layer.
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	fmt.Fprintf(progress, "%s: installing %s from Debian %s\n", r.name, strings.Join(r.packages, ", "), suite)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run mmdebstrap (Debian package mmdebstrap, as root): %w: %s", err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// compile builds the recipe's Go program into dir.
func (r recipe) compile(ctx context.Context, source, dir string) (string, error) {
	path := filepath.Join(dir, filepath.Base(r.program))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", path, ".")
	cmd.Dir = filepath.Join(source, r.program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile %s: %w: %s", r.program, err, bytes.TrimSpace(out))
	}
	return path, nil
}
