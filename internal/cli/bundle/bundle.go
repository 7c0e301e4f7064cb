// Package bundle collects what somebody needs who is asked for help: Davit's
// objects, the logs of its parts, events and versions, in one archive. Secrets
// are not in it: none is collected, and whatever is collected goes through a
// Redactor that knows those of davit-system.
package bundle

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"davit.dev/davit/api/v1alpha1"
)

// maxLog bounds one container's log, in bytes.
const maxLog = 8 << 20

// lastApplied is an annotation in which kubectl repeats an object.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// Log names one container's log.
type Log struct {
	Namespace, Pod, Container string
	Previous                  bool
}

// Source is what a bundle is collected from.
type Source struct {
	Objects client.Reader
	// OpenLog opens the last lines of a log.
	OpenLog func(ctx context.Context, log Log) (io.ReadCloser, error)
	// Versions are facts such as davit's and the cluster's version.
	Versions map[string]string
	Now      time.Time
	// Progress is told what is collected.
	Progress func(what string)
}

// Report says what is in a bundle and what could not be had.
type Report struct {
	Files   int      `json:"files"`
	Missing []string `json:"missing,omitempty"`
	// SecretsKnown says that davit-system's own Secrets could be read, so that
	// each of their values was looked for, whatever it looks like.
	SecretsKnown bool `json:"secretsKnown"`
}

// kinds are what is collected, with the folder it goes to.
func kinds() map[string]client.ObjectList {
	return map[string]client.ObjectList{
		"vaults": &v1alpha1.VaultList{}, "sites": &v1alpha1.SiteList{}, "applications": &v1alpha1.ApplicationList{},
		"policies": &v1alpha1.ProtectionPolicyList{}, "recoverypoints": &v1alpha1.RecoveryPointList{},
		"restores": &v1alpha1.RestoreList{}, "volumetasks": &v1alpha1.VolumeTaskList{},
		"nodes": &corev1.NodeList{}, "storageclasses": &storagev1.StorageClassList{}, "csidrivers": &storagev1.CSIDriverList{},
	}
}

// systemKinds are collected from davit-system only. Secrets and ConfigMaps
// are not among them.
func systemKinds() map[string]client.ObjectList {
	return map[string]client.ObjectList{
		"deployments": &appsv1.DeploymentList{}, "daemonsets": &appsv1.DaemonSetList{}, "events": &corev1.EventList{},
		"claims": &corev1.PersistentVolumeClaimList{},
	}
}

// Write collects a bundle into w. What cannot be had is noted and left out;
// an error means that the archive itself could not be written.
func Write(ctx context.Context, w io.Writer, src Source) (Report, error) {
	packed := gzip.NewWriter(w)
	b := &writer{src: src, tar: tar.NewWriter(packed)}
	b.learnSecrets(ctx)
	for _, collect := range []func(context.Context) error{b.versions, b.objects, b.pods, b.davitEvents} {
		if err := collect(ctx); err != nil {
			return b.report, err
		}
	}
	err := b.file("missing.txt", []byte(strings.Join(b.report.Missing, "\n")+"\n"))
	if err := errors.Join(err, b.tar.Close(), packed.Close()); err != nil {
		return b.report, fmt.Errorf("write bundle: %w", err)
	}
	return b.report, nil
}

type writer struct {
	src    Source
	tar    *tar.Writer
	redact *Redactor
	report Report
}

func (b *writer) say(what string) {
	if b.src.Progress != nil {
		b.src.Progress(what)
	}
}

func (b *writer) missing(what string, err error) {
	b.report.Missing = append(b.report.Missing, string(b.redact.Redact([]byte(fmt.Sprintf("%s: %v", what, err)))))
}

// learnSecrets reads davit-system's Secrets for the sole purpose of keeping
// their values out.
func (b *writer) learnSecrets(ctx context.Context) {
	var all corev1.SecretList
	err := b.src.Objects.List(ctx, &all, client.InNamespace(v1alpha1.SystemNamespace))
	var values [][]byte
	for i := range all.Items {
		for name, value := range all.Items[i].Data {
			if !notSecret[name] {
				values = append(values, value)
			}
		}
	}
	b.redact = NewRedactor(values)
	b.report.SecretsKnown = err == nil
	if err != nil {
		b.missing("values of Secrets, to look for them", err)
	}
}

// notSecret are entries of Secrets that name things and are not secret.
var notSecret = map[string]bool{"vault-id": true, "project": true, "key-id": true, "ca.crt": true, "namespace": true}

func (b *writer) file(name string, text []byte) error {
	text = b.redact.Redact(text)
	header := &tar.Header{Name: path.Join("davit-support", name), Mode: 0o600, Size: int64(len(text)), ModTime: b.src.Now}
	if err := b.tar.WriteHeader(header); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	if _, err := b.tar.Write(text); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	b.report.Files++
	return nil
}

func (b *writer) document(name string, v any) error {
	text, err := yaml.Marshal(v)
	if err != nil {
		b.missing(name, err)
		return nil
	}
	return b.file(name, text)
}

func (b *writer) versions(context.Context) error {
	return b.document("versions.yaml", b.src.Versions)
}

func (b *writer) objects(ctx context.Context) error {
	b.say("objects")
	for folder, list := range kinds() {
		if err := b.list(ctx, folder, list); err != nil {
			return err
		}
	}
	for folder, list := range systemKinds() {
		if err := b.list(ctx, "davit-system/"+folder, list, client.InNamespace(v1alpha1.SystemNamespace)); err != nil {
			return err
		}
	}
	return nil
}

// list writes every object of a kind into a file of its own.
func (b *writer) list(ctx context.Context, folder string, list client.ObjectList, opts ...client.ListOption) error {
	if err := b.src.Objects.List(ctx, list, opts...); err != nil {
		b.missing(folder, err)
		return nil
	}
	return meta.EachListItem(list, func(item runtime.Object) error {
		o, ok := item.(client.Object)
		if !ok {
			return nil
		}
		return b.object(folder, o)
	})
}

func (b *writer) object(folder string, o client.Object) error {
	o.SetManagedFields(nil)
	annotations := o.GetAnnotations()
	delete(annotations, lastApplied)
	o.SetAnnotations(annotations)
	name := o.GetName()
	if o.GetNamespace() != "" && !strings.HasPrefix(folder, "davit-system/") {
		name = o.GetNamespace() + "_" + name
	}
	return b.document(folder+"/"+name+".yaml", o)
}

// pods writes the pods of davit-system and their logs.
func (b *writer) pods(ctx context.Context) error {
	var all corev1.PodList
	if err := b.src.Objects.List(ctx, &all, client.InNamespace(v1alpha1.SystemNamespace)); err != nil {
		b.missing("pods", err)
		return nil
	}
	for i := range all.Items {
		pod := &all.Items[i]
		if err := b.object("davit-system/pods", pod); err != nil {
			return err
		}
		for _, c := range pod.Status.ContainerStatuses {
			if err := b.log(ctx, Log{pod.Namespace, pod.Name, c.Name, false}); err != nil {
				return err
			}
			if c.RestartCount > 0 {
				if err := b.log(ctx, Log{pod.Namespace, pod.Name, c.Name, true}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (b *writer) log(ctx context.Context, log Log) error {
	name := fmt.Sprintf("logs/%s_%s.log", log.Pod, log.Container)
	if log.Previous {
		name = fmt.Sprintf("logs/%s_%s.previous.log", log.Pod, log.Container)
	}
	b.say(name)
	r, err := b.src.OpenLog(ctx, log)
	if apierrors.IsNotFound(err) { // pods that hold a volume come and go: its end is all that there is to know
		return b.file(name, []byte(err.Error()+"\n"))
	}
	if err != nil {
		b.missing(name, err)
		return nil
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxLog))
	if err != nil {
		b.missing(name, err)
	}
	return b.file(name, text)
}

// davitEvents writes the events of all namespaces that are about Davit's kinds.
func (b *writer) davitEvents(ctx context.Context) error {
	var all corev1.EventList
	if err := b.src.Objects.List(ctx, &all); err != nil {
		b.missing("events", err)
		return nil
	}
	for i := range all.Items {
		event := &all.Items[i]
		if event.Namespace == v1alpha1.SystemNamespace || !strings.HasPrefix(event.InvolvedObject.APIVersion, v1alpha1.GroupVersion.Group+"/") {
			continue
		}
		if err := b.object("events", event); err != nil {
			return err
		}
	}
	return nil
}
