// Command points fills a vault with recovery points, as captures of a small application would have
// left them over weeks: each is a twin of one that is there, and older than it. Some have a snapshot of its volume, of their own, which takes the
// longest. For tests that want more points than there is time to capture.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/volume"
)

// writers write points at a time.
const writers = 8

func main() {
	var f filler
	address := flag.String("vault", "", "address of the vault; DAVIT_ACCESS_KEY and DAVIT_SECRET_KEY open it")
	key := flag.String("key", "", "file with its recovery key")
	flag.StringVar(&f.app, "application", "", "whose points they are")
	flag.StringVar(&f.like, "like", "", "the point that they are twins of")
	flag.StringVar(&f.tree, "tree", "", "a directory with what is in its only volume")
	flag.IntVar(&f.count, "count", 10_000, "how many")
	flag.IntVar(&f.whole, "whole", 50, "each so many-th has its volume, the oldest among them")
	flag.DurationVar(&f.every, "every", time.Minute, "how far apart")
	flag.Parse()
	if err := f.run(context.Background(), *address, *key); err != nil {
		fmt.Fprintln(os.Stderr, "fill vault:", err)
		os.Exit(1)
	}
}

type filler struct {
	app, like, tree string
	count, whole    int
	every           time.Duration

	project *vault.Project
	model   *point.Manifest
	objects [][][]byte // of each of the model's resources
}

func (f *filler) run(ctx context.Context, address, key string) error {
	identity, err := readKey(key)
	if err != nil {
		return err
	}
	store, err := backend.Open(ctx, backend.Config{URL: address, AccessKey: os.Getenv("DAVIT_ACCESS_KEY"), SecretKey: os.Getenv("DAVIT_SECRET_KEY")})
	if err != nil {
		return err
	}
	if f.project, err = vault.OpenProject(ctx, store, "default", identity); err != nil {
		return err
	}
	if err := f.read(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	turns := make(chan int)
	g.Go(func() error {
		defer close(turns)
		for i := range f.count {
			select {
			case turns <- i:
			case <-ctx.Done():
				return nil
			}
		}
		return nil
	})
	for range writers {
		g.Go(func() error {
			return f.write(ctx, turns)
		})
	}
	return g.Wait()
}

// readKey finds the key among the remarks of its file.
func readKey(path string) (vault.Identity, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return vault.Identity{}, fmt.Errorf("read recovery key: %w", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if line := strings.TrimSpace(lines.Text()); line != "" && !strings.HasPrefix(line, "#") {
			return vault.ParseIdentity(line)
		}
	}
	return vault.Identity{}, errors.New("the file has no key")
}

// read reads the model and its objects.
func (f *filler) read(ctx context.Context) (err error) {
	if f.model, err = f.project.Manifest(ctx, f.app, f.like); err != nil {
		return err
	}
	if len(f.model.Volumes) > 1 {
		return fmt.Errorf("%s has %d volumes, and one directory is given", f.like, len(f.model.Volumes))
	}
	for _, res := range f.model.Resources {
		var objects [][]byte
		if err := f.project.ReadResource(ctx, res, func(object []byte) error {
			objects = append(objects, bytes.Clone(object))
			return nil
		}); err != nil {
			return err
		}
		f.objects = append(f.objects, objects)
	}
	return nil
}

// write writes the points whose turn it is, the oldest first.
func (f *filler) write(ctx context.Context, turns <-chan int) (err error) {
	var repo *volume.Repository
	if len(f.model.Volumes) > 0 {
		opts := protection.VolumeOptions(f.project, f.model.Volumes[0].Snapshot.Repository)
		if repo, err = volume.Open(ctx, opts); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, repo.Close(context.WithoutCancel(ctx))) }()
	}
	for i := range turns {
		if err := f.writePoint(ctx, repo, i%f.whole == 0, f.model.Instant.Add(-time.Duration(f.count-i)*f.every)); err != nil {
			return fmt.Errorf("point %d: %w", i, err)
		}
	}
	return nil
}

func (f *filler) writePoint(ctx context.Context, repo *volume.Repository, whole bool, at time.Time) error {
	id, err := point.NewID(f.app, at, rand.Reader)
	if err != nil {
		return err
	}
	w, err := f.project.NewWriter(ctx, f.app, id)
	if err != nil {
		return err
	}
	m := *f.model
	m.StartedAt, m.Instant, m.CutBy, m.FinishedAt = at, at, at.Add(time.Second), at.Add(2*time.Second)
	m.Resources, m.Volumes = nil, nil
	for i, res := range f.model.Resources {
		rw := w.Resource(res)
		for _, object := range f.objects[i] {
			if err := rw.Add(ctx, object); err != nil {
				return err
			}
		}
		written, err := rw.Close(ctx)
		if err != nil {
			return err
		}
		m.Resources = append(m.Resources, written)
	}
	for _, v := range f.model.Volumes {
		if !whole {
			break
		}
		v.Instant = at
		if v.Snapshot, err = repo.Write(ctx, volume.WriteOptions{
			Root: f.tree, Source: volume.Source{Namespace: v.Namespace, Claim: v.Claim}, Previous: &v.Snapshot, Cut: at,
		}); err != nil {
			return err
		}
		m.Volumes = append(m.Volumes, v)
	}
	return w.Publish(ctx, &m, nil)
}
