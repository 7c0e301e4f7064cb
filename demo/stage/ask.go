package stage

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/client-go/util/jsonpath"
)

// asker answers what tests ask kubectl most, in this process and over a connection that
// stays. Who waits on a cluster asks again and again, and a process for each question takes
// more of a machine's time than the cluster does that is waited for.
type asker struct {
	made   time.Time // the kubeconfig that it was made of
	config *rest.Config
	client dynamic.Interface
	mapper meta.RESTMapper
}

// errUnanswered: kubectl is to be asked, which has words for all that goes wrong.
var errUnanswered = errors.New("not answered without kubectl")

// patience is how long an answer may take before kubectl is asked.
const patience = 15 * time.Second

// ask answers a kubectl command line without kubectl, or says errUnanswered.
func (s *Stage) ask(ctx context.Context, site string, args []string) (string, error) {
	q, isQuestion := parseGet(args)
	o, isOrder := parseExec(args)
	if !isQuestion && !isOrder {
		return "", errUnanswered
	}
	a, err := s.asker(site)
	if err != nil {
		return "", errUnanswered
	}
	var out string
	if isOrder {
		out, err = a.exec(ctx, o)
	} else {
		out, err = a.get(ctx, q)
	}
	if err != nil && !errors.Is(err, errUnanswered) {
		err = fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(out), err
}

// asker is the one of a site as it is now: a site that was made anew has other keys.
func (s *Stage) asker(site string) (*asker, error) {
	at := s.Bed.Site(site)
	st, err := os.Stat(at.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("find kubeconfig of %s: %w", site, err)
	}
	s.asking.Lock()
	defer s.asking.Unlock()
	if a := s.askers[site]; a != nil && a.made.Equal(st.ModTime()) {
		return a, nil
	}
	config, err := at.RESTConfig()
	if err != nil {
		return nil, err
	}
	a, err := newAsker(config)
	if err != nil {
		return nil, err
	}
	a.made = st.ModTime()
	if s.askers == nil {
		s.askers = map[string]*asker{}
	}
	s.askers[site] = a
	return a, nil
}

func newAsker(config *rest.Config) (*asker, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.WarningHandler = rest.NoWarnings{}
	disco, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make discovery client: %w", err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	known := memory.NewMemCacheClient(disco)
	mapper := restmapper.NewShortcutExpander(restmapper.NewDeferredDiscoveryRESTMapper(known), known, nil)
	return &asker{config: config, client: client, mapper: mapper}, nil
}

// question is a kubectl get that prints names or a JSONPath.
type question struct {
	namespace, resource, name string
	everywhere                bool // in all namespaces
	labels, fields            string
	lenient                   bool   // what is not there is no error
	output                    string // name, or jsonpath=…
}

// parseGet reads a command line, and says whether it is a question that get answers.
func parseGet(args []string) (q question, ok bool) {
	var words []string
	for i := 0; i < len(args); i++ {
		value := map[string]*string{"-n": &q.namespace, "-l": &q.labels, "-o": &q.output, "--field-selector": &q.fields}[args[i]]
		switch {
		case value != nil && i+1 < len(args):
			i++
			*value = args[i]
		case args[i] == "-A":
			q.everywhere = true
		case args[i] == "--ignore-not-found":
			q.lenient = true
		case strings.HasPrefix(args[i], "-"):
			return q, false
		default:
			words = append(words, args[i])
		}
	}
	if len(words) < 2 || len(words) > 3 || words[0] != "get" || strings.Contains(words[1], ",") {
		return q, false
	}
	q.resource, q.name, _ = strings.Cut(words[1], "/")
	if len(words) == 3 {
		q.name = words[2]
	}
	return q, q.output == "name" || strings.HasPrefix(q.output, "jsonpath=")
}

// get answers as kubectl does.
func (a *asker) get(ctx context.Context, q question) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	mapping, err := a.mapping(q.resource)
	if err != nil {
		return "", errUnanswered
	}
	var from dynamic.ResourceInterface = a.client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace && !q.everywhere {
		from = a.client.Resource(mapping.Resource).Namespace(cmp.Or(q.namespace, metav1.NamespaceDefault))
	}
	if q.name == "" {
		list, err := from.List(ctx, metav1.ListOptions{LabelSelector: q.labels, FieldSelector: q.fields})
		switch {
		case err != nil:
			return "", errUnanswered
		case len(list.Items) == 0 && q.lenient:
			return "", nil
		}
		return show(q.output, list.UnstructuredContent(), list.Items)
	}
	one, err := from.Get(ctx, q.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) && q.lenient:
		return "", nil
	case apierrors.IsNotFound(err) && strings.Contains(err.Error(), q.name): // the object, and not its kind
		return "", fmt.Errorf("Error from server (NotFound): %w", err) //nolint:staticcheck // as kubectl says it
	case err != nil:
		return "", errUnanswered
	}
	return show(q.output, one.UnstructuredContent(), []unstructured.Unstructured{*one})
}

// mapping finds the kind that is called so.
func (a *asker) mapping(resource string) (*meta.RESTMapping, error) {
	versioned, bare := schema.ParseResourceArg(resource)
	if versioned != nil {
		if gvk, err := a.mapper.KindFor(*versioned); err == nil {
			return a.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		}
	}
	gvk, err := a.mapper.KindFor(bare.WithVersion(""))
	if err != nil {
		return nil, fmt.Errorf("find kind of %s: %w", resource, err)
	}
	return a.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
}

// show prints objects as the output says. all is what a JSONPath is about.
func show(output string, all map[string]any, objects []unstructured.Unstructured) (string, error) {
	var text bytes.Buffer
	if output == "name" {
		for _, o := range objects {
			gk := o.GroupVersionKind().GroupKind()
			fmt.Fprintf(&text, "%s/%s\n", strings.TrimSuffix(strings.ToLower(gk.Kind)+"."+gk.Group, "."), o.GetName())
		}
		return text.String(), nil
	}
	path := jsonpath.New("out").AllowMissingKeys(true)
	if err := path.Parse(strings.TrimPrefix(output, "jsonpath=")); err != nil {
		return "", errUnanswered
	}
	if err := path.Execute(&text, all); err != nil {
		return "", errUnanswered
	}
	return text.String(), nil
}

// order is a kubectl exec without input.
type order struct {
	namespace, pod, container string
	command                   []string
}

// parseExec reads a command line, and says whether it is an order that exec carries out.
func parseExec(args []string) (o order, ok bool) {
	if len(args) < 6 || args[0] != "-n" || args[2] != "exec" || strings.HasPrefix(args[3], "-") || strings.Contains(args[3], "/") {
		return o, false
	}
	o.namespace, o.pod, args = args[1], args[3], args[4:]
	if args[0] == "-c" && len(args) > 3 {
		o.container, args = args[1], args[2:]
	}
	o.command = args[1:]
	return o, args[0] == "--" && len(o.command) > 0
}

// exec runs a command in a pod, as kubectl does, and returns what it printed. Nothing of it
// is ever done again by kubectl.
func (a *asker) exec(ctx context.Context, o order) (string, error) {
	if o.container == "" {
		pod, err := a.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace(o.namespace).Get(ctx, o.pod, metav1.GetOptions{})
		if err != nil {
			return "", fmt.Errorf("Error from server: %w", err) //nolint:staticcheck // as kubectl says it
		}
		containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
		first, _ := containers[0].(map[string]any)
		o.container, _ = first["name"].(string)
	}
	where, err := url.Parse(a.config.Host)
	if err != nil {
		return "", fmt.Errorf("read address of API server: %w", err)
	}
	where = where.JoinPath("api/v1/namespaces", o.namespace, "pods", o.pod, "exec")
	where.RawQuery = url.Values{"container": {o.container}, "command": o.command, "stdout": {"true"}, "stderr": {"true"}}.Encode()
	executor, err := remotecommand.NewWebSocketExecutor(a.config, "GET", where.String())
	if err != nil {
		return "", fmt.Errorf("reach pod: %w", err)
	}
	var out, said bytes.Buffer
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &said})
	var ended exec.CodeExitError
	switch {
	case errors.As(err, &ended):
		return out.String(), fmt.Errorf("exit status %d\n%s\ncommand terminated with exit code %[1]d", ended.Code, strings.TrimSpace(said.String()))
	case err != nil:
		return out.String(), fmt.Errorf("%w\n%s", err, strings.TrimSpace(said.String()))
	}
	return out.String(), nil
}
