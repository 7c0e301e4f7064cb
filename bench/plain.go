package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

const (
	payload   = 1 << 10 // bytes in each object
	pageSize  = 500     // objects in a page of a list
	plainPack = 4 << 20 // bytes in one object of the vault, as davit's packs
	fewPuts   = 4       // objects of the vault written at a time
)

// plain is what a person would write with client-go: no retries, no order, no
// checks. Half of the objects are Secrets, half ConfigMaps, or all are Secrets.
type plain struct {
	kube      kubernetes.Interface
	namespace string
	objects   int
	workers   int
	secrets   bool // all of them
}

func (p plain) isSecret(i int) bool { return p.secrets || i%2 == 0 }

// each calls fn for every object with all workers busy, and tells the time.
func (p plain) each(ctx context.Context, fn func(ctx context.Context, i int) error) (time.Duration, error) {
	start := time.Now()
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range p.workers {
		g.Go(func() error {
			for i := int(next.Add(1)) - 1; i < p.objects; i = int(next.Add(1)) - 1 {
				if err := fn(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := g.Wait()
	return time.Since(start), err
}

func name(i int) string { return fmt.Sprintf("object-%06d", i) }

// text is random, so that compression gains little, as with keys and tokens.
func text() string {
	b := make([]byte, payload*3/4)
	_, _ = rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}

func (p plain) secret(i int) *corev1.Secret {
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: name(i)}, StringData: map[string]string{"value": text()},
	}
}

func (p plain) configMap(i int) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: name(i)}, Data: map[string]string{"value": text()},
	}
}

// create makes the namespace, which is not timed, and the objects.
func (p plain) create(ctx context.Context) (time.Duration, error) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: p.namespace}}
	if _, err := p.kube.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return 0, fmt.Errorf("create namespace: %w", err)
	}
	return p.each(ctx, func(ctx context.Context, i int) (err error) {
		if p.isSecret(i) {
			_, err = p.kube.CoreV1().Secrets(p.namespace).Create(ctx, p.secret(i), metav1.CreateOptions{})
		} else {
			_, err = p.kube.CoreV1().ConfigMaps(p.namespace).Create(ctx, p.configMap(i), metav1.CreateOptions{})
		}
		return err
	})
}

// get reads every object.
func (p plain) get(ctx context.Context) (time.Duration, error) {
	return p.each(ctx, func(ctx context.Context, i int) (err error) {
		if p.isSecret(i) {
			_, err = p.kube.CoreV1().Secrets(p.namespace).Get(ctx, name(i), metav1.GetOptions{})
		} else {
			_, err = p.kube.CoreV1().ConfigMaps(p.namespace).Get(ctx, name(i), metav1.GetOptions{})
		}
		return err
	})
}

// apply is a forced server-side apply of every object, with new content.
func (p plain) apply(ctx context.Context) (time.Duration, error) {
	opts := metav1.PatchOptions{FieldManager: "bench", Force: new(true)}
	return p.each(ctx, func(ctx context.Context, i int) error {
		if p.isSecret(i) {
			data, err := json.Marshal(p.secret(i))
			if err == nil {
				_, err = p.kube.CoreV1().Secrets(p.namespace).Patch(ctx, name(i), types.ApplyPatchType, data, opts)
			}
			return err
		}
		data, err := json.Marshal(p.configMap(i))
		if err == nil {
			_, err = p.kube.CoreV1().ConfigMaps(p.namespace).Patch(ctx, name(i), types.ApplyPatchType, data, opts)
		}
		return err
	})
}

// list does what a capture cannot do without: it lists both kinds in pages, side by side.
func (b *bench) list(ctx context.Context, by kubernetes.Interface, namespace string) (time.Duration, error) {
	start := time.Now()
	err := pages(ctx, by, namespace, func(string, runtime.Object) error { return nil })
	return time.Since(start), err
}

// write does the other thing: it puts every object's JSON into the vault, as it is.
func (b *bench) write(ctx context.Context, namespace, prefix string) (time.Duration, error) {
	packs, err := b.packs(ctx, namespace)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(fewPuts)
	for i, pack := range packs {
		g.Go(func() error {
			key := fmt.Sprintf("%s-%d", prefix, i)
			if _, err := b.s3.PutObject(ctx, b.bucket, key, bytes.NewReader(pack), int64(len(pack)), minio.PutObjectOptions{}); err != nil {
				return fmt.Errorf("put %s: %w", key, err)
			}
			return nil
		})
	}
	err = g.Wait()
	return time.Since(start), err
}

// pages lists both kinds side by side, and shows each page.
func pages(ctx context.Context, by kubernetes.Interface, namespace string, show func(kind string, page runtime.Object) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for kind, list := range map[string]func(metav1.ListOptions) (runtime.Object, error){
		"secrets": func(o metav1.ListOptions) (runtime.Object, error) {
			return by.CoreV1().Secrets(namespace).List(ctx, o)
		},
		"configmaps": func(o metav1.ListOptions) (runtime.Object, error) {
			return by.CoreV1().ConfigMaps(namespace).List(ctx, o)
		},
	} {
		g.Go(func() error {
			opts := metav1.ListOptions{Limit: pageSize}
			for {
				page, err := list(opts)
				if err != nil {
					return fmt.Errorf("list %s: %w", kind, err)
				}
				if err := show(kind, page); err != nil {
					return err
				}
				next, err := meta.ListAccessor(page)
				if err != nil {
					return fmt.Errorf("read page of %s: %w", kind, err)
				}
				if opts.Continue = next.GetContinue(); opts.Continue == "" {
					return nil
				}
			}
		})
	}
	return g.Wait()
}

// packs are the objects' JSON, in pieces as large as davit's packs.
func (b *bench) packs(ctx context.Context, namespace string) ([][]byte, error) {
	var mu sync.Mutex
	var done [][]byte
	open := map[string]*bytes.Buffer{"secrets": {}, "configmaps": {}}
	err := pages(ctx, b.kube, namespace, func(kind string, page runtime.Object) error {
		buf := open[kind]
		return meta.EachListItem(page, func(object runtime.Object) error {
			if err := json.NewEncoder(buf).Encode(object); err != nil {
				return fmt.Errorf("encode object: %w", err)
			}
			if buf.Len() >= plainPack {
				mu.Lock()
				defer mu.Unlock()
				done = append(done, bytes.Clone(buf.Bytes()))
				buf.Reset()
			}
			return nil
		})
	})
	for _, buf := range open {
		if buf.Len() > 0 {
			done = append(done, buf.Bytes())
		}
	}
	return done, err
}
