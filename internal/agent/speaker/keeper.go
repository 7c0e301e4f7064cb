package speaker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
)

// SecretName is the Secret that has the ways to consoles, one for each project.
const SecretName = v1alpha1.ConsoleSecret

// keeper keeps the link of one project in the Secret.
type keeper struct {
	client  client.Client
	reader  client.Reader
	project string
	token   string // that was there when it was loaded
}

func key() client.ObjectKey {
	return client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: SecretName}
}

// Load implements dial.Keeper.
func (k *keeper) Load(ctx context.Context) (dial.Link, error) {
	var secret corev1.Secret
	if err := k.reader.Get(ctx, key(), &secret); err != nil {
		return dial.Link{}, fmt.Errorf("read the way to the console: %w", err)
	}
	l, err := parse(secret.Data[k.project])
	k.token = l.Token
	return l, err
}

func parse(data []byte) (dial.Link, error) {
	var l dial.Link
	if err := json.Unmarshal(data, &l); err != nil { // its text could hold the key
		return l, fmt.Errorf("read the way to the console: Secret %s holds none; %w", SecretName, dial.ErrEnrol)
	}
	return l, nil
}

// TakesAll are the projects of whose consoles a cluster takes all documents, sorted.
func TakesAll(ctx context.Context, c client.Reader) ([]string, error) {
	var secret corev1.Secret
	if err := c.Get(ctx, key(), &secret); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("read the ways to consoles: %w", err)
	}
	var all []string
	for project, data := range secret.Data {
		// What cannot be read lets nobody in.
		if l, err := parse(data); err == nil && slices.Contains(l.Documents, dial.Everywhere) {
			all = append(all, project)
		}
	}
	slices.Sort(all)
	return all, nil
}

// Save implements dial.Keeper. Another project's agent loop may write beside: only
// what is this project's must not have changed.
func (k *keeper) Save(ctx context.Context, l dial.Link) error {
	data, err := json.Marshal(l)
	if err != nil {
		return errors.New("write the way to the console: it cannot be encoded")
	}
	var secret corev1.Secret
	if err := k.reader.Get(ctx, key(), &secret); err != nil {
		return fmt.Errorf("write the way to the console: %w", err)
	}
	now, err := parse(secret.Data[k.project])
	if err != nil {
		return err
	}
	if now.Token != k.token {
		return errors.New("write the way to the console: another token was given meanwhile")
	}
	secret.Data[k.project] = data
	if err := k.client.Update(ctx, &secret); err != nil {
		return fmt.Errorf("write the way to the console: %w", err)
	}
	k.token = l.Token
	return nil
}

// Permits are what a site lets a console do, as dial.Link has it.
type Permits struct {
	Documents      []string
	Runs, Restores string
}

// Introduce gives a cluster's agent a token for a console.
// what says what the site lets it do.
func Introduce(ctx context.Context, c client.Client, urls []string, t uplink.Token, what Permits) error {
	data, err := json.Marshal(dial.Link{URLs: urls, Token: t.String(), Documents: what.Documents, Runs: what.Runs, Restores: what.Restores})
	if err != nil {
		return errors.New("write the way to the console: it cannot be encoded")
	}
	var secret corev1.Secret
	err = c.Get(ctx, key(), &secret)
	if apierrors.IsNotFound(err) {
		secret.ObjectMeta = metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: SecretName, Labels: map[string]string{v1alpha1.LabelManagedBy: "davit"}}
		secret.Data = map[string][]byte{t.Project: data}
		err = c.Create(ctx, &secret)
	} else if err == nil {
		if secret.Data == nil {
			secret.Data = map[string][]byte{}
		}
		secret.Data[t.Project] = data
		err = c.Update(ctx, &secret)
	}
	if err != nil {
		return fmt.Errorf("write the way to the console: %w", err)
	}
	return nil
}
