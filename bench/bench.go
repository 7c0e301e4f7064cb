package main

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
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"k8s.io/client-go/kubernetes"

	"davit.dev/davit/demo/stage"
)

// bench is a site with davit in it, and the plain means to compare with. What
// it makes in the site is left there: deleting it would disturb what follows,
// and goes with the bed.
type bench struct {
	settings
	stage  *stage.Stage
	kube   kubernetes.Interface // asks for answers as they are, as davit's agent does: the server is near
	zipped kubernetes.Interface // asks for compressed ones, as client-go does by itself
	s3     *minio.Client
	bucket string
	binary string // a copy: a build beside this run must not change it
	report report

	prepared bool // the application with many objects is there
}

func open(s *stage.Stage, set settings) (*bench, error) {
	b := &bench{settings: set, stage: s, bucket: "bench-" + time.Now().UTC().Format("150405"), binary: filepath.Join(s.Work, "davit")}
	b.report.out = os.Stdout
	program, err := os.ReadFile(filepath.Join(s.Root, "bin", "davit"))
	if err != nil {
		return nil, fmt.Errorf("read davit: %w", err)
	}
	if err := os.WriteFile(b.binary, program, 0o755); err != nil {
		return nil, fmt.Errorf("copy davit: %w", err)
	}
	config, err := s.Bed.Site(site).RESTConfig()
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // no limit of the client's own, as in davit
	if b.zipped, err = kubernetes.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	config.DisableCompression = true
	if b.kube, err = kubernetes.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	info := s.Bed.S3()
	b.s3, err = minio.New(strings.TrimPrefix(info.Endpoint, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(info.AccessKey, info.SecretKey, ""), Region: info.Region,
	})
	if err != nil {
		return nil, fmt.Errorf("make S3 client: %w", err)
	}
	return b, nil
}

// ran is what a finished command leaves behind.
type ran struct {
	out   []byte
	took  time.Duration
	spent time.Duration // of processor time
	peak  int64         // bytes of memory, at most
}

// withWarnings is davit's exit code for what was done with warnings.
const withWarnings = 4

// davit runs a command of davit's and tells how long it took. Warnings are no
// error here; they are in the log.
func (b *bench) davit(ctx context.Context, args ...string) (ran, error) {
	return b.davitAt(ctx, site, args...)
}

// davitAt runs it at one of several sites.
func (b *bench) davitAt(ctx context.Context, at string, args ...string) (ran, error) {
	args = append([]string{"--kubeconfig", b.stage.Bed.Site(at).Kubeconfig(), "--vault", b.bucket, "-o", "json"}, args...)
	s3 := b.stage.Bed.S3()
	r, err := b.command(ctx, []string{"DAVIT_ACCESS_KEY=" + s3.AccessKey, "DAVIT_SECRET_KEY=" + s3.SecretKey}, b.binary, args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == withWarnings {
		fmt.Fprintf(b.stage.Log, "%s\n", r.out)
		err = nil
	}
	return r, err
}

func (b *bench) command(ctx context.Context, env []string, name string, args ...string) (ran, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, io.MultiWriter(&said, b.stage.Log)
	fmt.Fprintln(b.stage.Log, "$", name, strings.Join(args, " "))
	start := time.Now()
	err := cmd.Start()
	r := ran{}
	if err == nil {
		peak := observe(process(cmd.Process.Pid))
		err = cmd.Wait()
		r.took, r.peak = time.Since(start), peak()
		r.spent = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	r.out = out.Bytes()
	if err != nil {
		return r, fmt.Errorf("%s %s: %w\n%.2000s\n%.2000s", filepath.Base(name), strings.Join(args, " "), err, said.String(), out.String())
	}
	return r, nil
}

// backup has the agent capture an application now, and waits for the point.
func (b *bench) backup(ctx context.Context, app string) (ran, error) {
	return b.davit(ctx, "backup", app, "--wait")
}

// restored is the part of a restore's report that is judged here.
type restored struct {
	Steps []struct {
		Name     string        `json:"name"`
		Duration time.Duration `json:"duration"`
	} `json:"steps"`
	Result struct {
		Created, Updated, Skipped, Continued, Failed int64
	} `json:"result"`
}

// clone restores the newest point of an application into another namespace.
func (b *bench) clone(ctx context.Context, app, namespace string, flags ...string) (ran, restored, error) {
	args := append([]string{"restore", app, "--as-clone", "--map-namespace", app + "=" + namespace}, flags...)
	r, err := b.davit(ctx, args...)
	var report restored
	if jsonErr := json.Unmarshal(r.out, &report); jsonErr != nil {
		return r, report, errors.Join(err, fmt.Errorf("read report: %w", jsonErr))
	}
	for _, step := range report.Steps {
		fmt.Fprintf(b.stage.Log, "  %-20s %s\n", step.Name, step.Duration)
	}
	return r, report, err
}

// named is a name of this run's own, for a bed that is kept.
func (b *bench) named(what string) string { return b.bucket + "-" + what }

// protect has davit know an application of one namespace, without a schedule.
func (b *bench) protect(ctx context.Context, app string) error {
	_, err := b.davit(ctx, "protect", app, "--namespace", app)
	return err
}
