// Package stage sets the scene for the demo and the end-to-end tests: it builds
// davit and its image, brings up a test bed, and runs the davit and kubectl
// commands the way a person would. It imports nothing of the product.
package stage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/testbed/bed"
	"davit.dev/davit/testbed/images"
)

// Image is the reference under which the sites have davit's image.
const Image = "davit.dev/davit:bed"

// system is the namespace of davit itself.
const system = "davit-system"

// Stage is a bed with everything built for it.
type Stage struct {
	Bed  *bed.Bed
	Root string    // the repository
	Work string    // scratch: keys, the ledger, reports
	Log  io.Writer // progress and the commands' standard error
	// Images maps the workload images' names to their references.
	Images map[string]string
	tars   []string // that Up has loaded into every site

	asking sync.Mutex
	askers map[string]*asker // by site
}

// Open finds the stage of an instance; nothing is started.
func Open(instance string, log io.Writer) (*Stage, error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	b, err := bed.Open(instance)
	if err != nil {
		return nil, fmt.Errorf("open bed: %w", err)
	}
	// Not in the bed's own directory: the ledger outlives a bed that is torn down around it.
	work := filepath.Join(os.TempDir(), "davit-stage-"+instance)
	return &Stage{Bed: b, Root: root, Work: work, Log: log, Images: map[string]string{}}, nil
}

// repository finds the checkout this program was built from.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find repository: %w", err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "cmd", "davit")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("find repository: run this from inside a checkout of Davit")
}

// Build makes the davit binary and its image.
func (s *Stage) Build(ctx context.Context) error {
	return s.run(ctx, "make", "-s", "-C", s.Root, "image", "IMAGE="+Image)
}

// Up brings the bed to life with davit's image and the named workload images.
func (s *Stage) Up(ctx context.Context, workloads ...string) error {
	if err := os.MkdirAll(s.Work, 0o700); err != nil {
		return fmt.Errorf("make work directory: %w", err)
	}
	if err := s.Bed.Up(ctx, bed.Options{Install: true, Log: s.Log}); err != nil {
		return fmt.Errorf("bring bed up: %w", err)
	}
	tars := []string{filepath.Join(s.Root, "dist", "davit-image.tar")}
	for _, name := range workloads {
		img, err := images.Build(ctx, CacheDir(), name, s.Log)
		if err != nil {
			return fmt.Errorf("build image %s: %w", name, err)
		}
		s.Images[name] = img.Ref
		tars = append(tars, img.Tar)
	}
	s.tars = tars
	for _, site := range s.Bed.Sites() {
		if err := s.loadAll(ctx, site); err != nil {
			return err
		}
	}
	return nil
}

// AddNode gives a site one more node, with the images that Up has loaded, and
// returns its name. See bed.NodeOptions for the taint.
func (s *Stage) AddNode(ctx context.Context, site, taint string) (string, error) {
	return s.Bed.Site(site).AddNode(ctx, bed.NodeOptions{Taint: taint, Images: s.tars})
}

// AddSite gives the bed one more site, with the images that Up has loaded. What is
// dead of the others stays dead.
func (s *Stage) AddSite(ctx context.Context, site string) error {
	if err := s.Bed.AddSite(ctx, site, s.Log); err != nil {
		return err
	}
	return s.loadAll(ctx, s.Bed.Site(site))
}

func (s *Stage) loadAll(ctx context.Context, site *bed.Site) error {
	for _, tar := range s.tars {
		if err := site.LoadImage(ctx, tar); err != nil {
			return fmt.Errorf("load image into %s: %w", site.Name(), err)
		}
	}
	return nil
}

// Load builds a workload image, unless it is there, and brings it to a site. It
// returns the image's reference.
func (s *Stage) Load(ctx context.Context, site, name string) (string, error) {
	img, err := images.Build(ctx, CacheDir(), name, s.Log)
	if err != nil {
		return "", fmt.Errorf("build image %s: %w", name, err)
	}
	if err := s.Bed.Site(site).LoadImage(ctx, img.Tar); err != nil {
		return "", fmt.Errorf("load image into %s: %w", site, err)
	}
	return img.Ref, nil
}

// Equip installs Davit at a site.
func (s *Stage) Equip(ctx context.Context, site string, flags ...string) error {
	return s.EquipAs(ctx, site, site, flags...)
}

// EquipAs installs Davit at a site under a name that may be another's.
func (s *Stage) EquipAs(ctx context.Context, site, name string, flags ...string) error {
	kubelet := s.Bed.Site(site).KubeletRoot()
	args := []string{
		"install", "--site", name, "--image", Image, "--replicas", "1", "--peer-port", "8084",
		"--kubelet-root", kubelet, "--host-path-root", filepath.Join(filepath.Dir(kubelet), "local"),
	}
	_, err := s.Davit(ctx, site, append(args, flags...)...)
	return err
}

// Push puts davit's image into a site's registry and returns what pods of the
// site call that registry.
func (s *Stage) Push(ctx context.Context, site, path string) (string, error) {
	err := s.run(ctx, "go", "run", "-C", s.Root, "./build/image", "--binary", "bin/davit", "--tag", Image,
		"--push", s.Bed.Site(site).Registry()+"/"+path, "--insecure")
	return "registry.bed/" + path, err
}

// Renew is Equip, also where another image of that name runs already. Settled waits for it.
func (s *Stage) Renew(ctx context.Context, site string, flags ...string) error {
	if err := s.Equip(ctx, site, flags...); err != nil {
		return err
	}
	_, err := s.Kubectl(ctx, site, "-n", system, "rollout", "restart", "deployment,daemonset")
	return err
}

// Settled waits until davit's own workloads at a site have been rolled out.
func (s *Stage) Settled(ctx context.Context, site string) error {
	for _, what := range []string{"deployment/davit-agent", "daemonset/davit-node"} {
		if _, err := s.Kubectl(ctx, site, "-n", system, "rollout", "status", what, "--timeout=4m"); err != nil {
			return err
		}
	}
	return nil
}

// CacheDir is where built binaries and images are kept between runs.
func CacheDir() string {
	if dir := os.Getenv("DAVIT_CACHE"); dir != "" {
		return dir
	}
	base, err := os.UserCacheDir()
	if err != nil {
		base = filepath.Join("/root", ".cache")
	}
	return filepath.Join(base, "davit")
}

// Bucket makes an empty bucket and returns a vault URL for it.
func (s *Stage) Bucket(name string) (string, error) {
	s3 := s.Bed.S3()
	if err := os.MkdirAll(filepath.Join(s3.DataDir, name), 0o700); err != nil {
		return "", fmt.Errorf("make bucket: %w", err)
	}
	return fmt.Sprintf("s3://%s/davit?endpoint=%s&region=%s&pathStyle=true&insecureHTTP=true", name, s3.Endpoint, s3.Region), nil
}

// Davit runs the davit command against a site and returns its standard output.
func (s *Stage) Davit(ctx context.Context, site string, args ...string) ([]byte, error) {
	return output(s.Command(ctx, site, args...), s.Log)
}

// Command is the davit command against a site, not run yet.
func (s *Stage) Command(ctx context.Context, site string, args ...string) *exec.Cmd {
	args = append([]string{"--kubeconfig", s.Bed.Site(site).Kubeconfig()}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(s.Root, "bin", "davit"), args...)
	s3 := s.Bed.S3()
	cmd.Env = append(os.Environ(), "DAVIT_ACCESS_KEY="+s3.AccessKey, "DAVIT_SECRET_KEY="+s3.SecretKey)
	fmt.Fprintf(s.Log, "$ davit %s\n", strings.Join(args, " "))
	return cmd
}

// DavitJSON runs the davit command with -o json and decodes what it prints.
func (s *Stage) DavitJSON(ctx context.Context, into any, site string, args ...string) error {
	out, err := s.Davit(ctx, site, append(args, "-o", "json")...)
	if len(out) == 0 && err != nil {
		return err
	}
	if derr := json.Unmarshal(out, into); derr != nil {
		return errors.Join(err, fmt.Errorf("read output of davit %s: %w: %.300q", args[0], derr, out))
	}
	return err
}

// Kubectl runs kubectl against a site and returns its standard output.
func (s *Stage) Kubectl(ctx context.Context, site string, args ...string) (string, error) {
	return s.KubectlIn(ctx, site, nil, args...)
}

// KubectlIn is Kubectl with standard input.
func (s *Stage) KubectlIn(ctx context.Context, site string, stdin io.Reader, args ...string) (string, error) {
	if stdin == nil {
		if out, err := s.ask(ctx, site, args); !errors.Is(err, errUnanswered) {
			return out, err
		}
	}
	args = append([]string{"--kubeconfig", s.Bed.Site(site).Kubeconfig()}, args...)
	cmd := exec.CommandContext(ctx, s.KubectlPath(), args...)
	cmd.Stdin = stdin
	out, err := output(cmd)
	return strings.TrimSpace(string(out)), err
}

// KubectlPath is the kubectl that was built with the sites.
func (s *Stage) KubectlPath() string {
	found, err := filepath.Glob(filepath.Join(CacheDir(), "bin", "k8s-*", "kubectl"))
	if err != nil || len(found) == 0 {
		return "kubectl"
	}
	return found[len(found)-1]
}

// output runs a command and puts what it said into the error, and where else it
// is wanted.
func output(cmd *exec.Cmd, also ...io.Writer) ([]byte, error) {
	var stderr bytes.Buffer
	cmd.Stderr = io.MultiWriter(append(also, &stderr)...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	if err != nil {
		said := strings.TrimSpace(stderr.String())
		return out, fmt.Errorf("%s %s: %w\n%s", filepath.Base(cmd.Path), strings.Join(cmd.Args[1:], " "), err, said)
	}
	return out, nil
}

func (s *Stage) run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = s.Log, s.Log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

// pause is how long Wait rests after an answer that took so long. Many wait at once, and
// what they ask takes the machine's time from what they wait for: no one asks for more
// than a third of its time.
func pause(took time.Duration) time.Duration {
	return min(max(200*time.Millisecond, 2*took), 3*time.Second)
}

// Wait asks until fn says true, and reports the last answer when ctx ends.
func Wait(ctx context.Context, what string, fn func(context.Context) (bool, string, error)) error {
	for {
		asked := time.Now()
		ok, state, err := fn(ctx)
		if ok && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s (last seen: %s): %w", what, state, errors.Join(ctx.Err(), err))
		case <-time.After(pause(time.Since(asked))):
		}
	}
}
