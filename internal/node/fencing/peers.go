package fencing

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/promise"
	"davit.dev/davit/internal/promise/hold"
)

const (
	// tryEvery is how often peers are asked while the vault answers: so it is seen beforehand whether they would promise.
	tryEvery = 30 * time.Second
	// learnEvery is how often it is looked for vaults whose key is not known yet.
	learnEvery = 2 * time.Second
)

// lean asks the peers of applications whose lease the vault has not renewed for half of its time, and now and then all others. They may be
// asked from when the vault says that every node keeps the lease: a version of Davit that knows no promises, and holds
// nothing, does not go by it then.
func (k *Keeper) lean(ctx context.Context) {
	now := k.opts.Uptime()
	k.mu.Lock()
	defer k.mu.Unlock()
	may := map[string]bool{}
	for _, a := range k.record.Applications {
		peers, epoch := a.Asks(k.leases, now)
		if len(peers) == 0 {
			continue
		}
		may[a.Name] = true
		last, before := k.leaned[a.Name]
		pause := max(tryEvery, a.Terms.Lease)
		if k.leases[a.Name]-now <= a.Terms.Lease/2 {
			pause = a.Terms.Lease / 8
		}
		if k.told[a.Name] != epoch || k.leaning[a.Name] || before && now-last < pause {
			continue
		}
		k.leaning[a.Name], k.leaned[a.Name] = true, now
		k.questions.Go(func() { k.askPeers(ctx, a, epoch, peers) })
	}
	for name := range k.leaned { // of whom nothing is to be asked any more nobody is silent
		if !may[name] {
			delete(k.leaned, name)
			peersSilent.DeleteLabelValues(name)
		}
	}
}

// askPeers prolongs one application's lease if all of them promise. The lease counts from before the first was asked.
func (k *Keeper) askPeers(ctx context.Context, a fence.Application, epoch int64, peers []fence.Peer) {
	ctx, cancel := context.WithTimeout(ctx, a.Terms.Lease/4)
	defer cancel()
	asked := k.opts.Uptime()
	err := k.allPromise(ctx, a, epoch, peers)
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.leaning, a.Name)
	if _, still := k.leaned[a.Name]; still {
		silent := 0.0
		if err != nil {
			silent = 1
		}
		peersSilent.WithLabelValues(a.Name).Set(silent)
	}
	if ctx.Err() == nil || err == nil {
		k.trouble("peers: "+a.Name, err)
	} else {
		k.trouble("peers: "+a.Name, fmt.Errorf("they did not answer in time: %w", err))
	}
	if err == nil && k.record.Promised(a.Name, epoch, asked, k.opts.Uptime(), k.leases) {
		k.saveLeases()
	}
}

func (k *Keeper) allPromise(ctx context.Context, a fence.Application, epoch int64, peers []fence.Peer) error {
	var app v1alpha1.Application
	if err := json.Unmarshal(a.Document, &app); err != nil {
		return fmt.Errorf("read application %s: %w", a.Name, err)
	}
	keys, known := k.access.known(app.Spec.Vault)
	if !known {
		return fmt.Errorf("vault %s was never open in this process: its key is not known", app.Spec.Vault)
	}
	return promise.All(ctx, keys, a.Name, epoch, peers, k.opts.Now)
}

// answer answers the peers of this site.
func (k *Keeper) answer(ctx context.Context) {
	server := &promise.Server{Now: k.opts.Now, Holds: k.holds, Cluster: func() string { return k.identity()[1] }, Known: func(app string) (newest, held int64) {
		k.mu.Lock()
		defer k.mu.Unlock()
		if a := k.record.Find(app); a != nil {
			return a.Newest, a.Held
		}
		return 0, 0
	}}
	k.questions.Go(func() {
		every(ctx, learnEvery, nil, func(ctx context.Context) { k.trouble("keys of peers", k.learn(ctx, server)) })
	})
	every(ctx, time.Second, nil, func(ctx context.Context) {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", k.opts.Peers)
		if err == nil {
			k.trouble("answers to peers", nil)
			err = server.Serve(ctx, l)
		}
		k.trouble("answers to peers", err)
	})
}

// holds reads what this site holds from the API server itself, by quorum: an answer of a cache may be from before a run
// that has claimed since.
func (k *Keeper) holds(ctx context.Context, project string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	var m corev1.ConfigMap
	err := k.opts.Reader.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: hold.Name(project)}, &m)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s: %w", hold.Name(project), err)
	}
	return m.Data, nil
}

// learn takes the keys of all vaults of this cluster: also of those of which nothing runs here.
func (k *Keeper) learn(ctx context.Context, server *promise.Server) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var all v1alpha1.VaultList
	if err := k.opts.Cache.List(ctx, &all); err != nil {
		return fmt.Errorf("list vaults: %w", err)
	}
	var problems []string
	for _, v := range all.Items {
		if k.access.fresh(v.Name) {
			continue
		}
		project, err := k.access.project(ctx, v.Name)
		if err == nil {
			err = project.Refresh(ctx)
		}
		if err == nil {
			k.access.keep(v.Name, project)
		}
		if keys, known := k.access.known(v.Name); known {
			server.Learn(keys)
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("vault %s: %v", v.Name, err))
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("some are as they were: %s", strings.Join(problems, "; "))
	}
	return nil
}
