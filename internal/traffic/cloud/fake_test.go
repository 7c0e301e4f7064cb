package cloud

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
)

// fake is a service with one zone. It says what the services' documentation says
// that they say; nothing here was recorded from them.
type fake struct {
	mu      sync.Mutex
	sets    map[string]set // by kind and name
	n       int            // of handles
	changes int
	blind   bool                                              // the control: it compares nothing
	instead func(w http.ResponseWriter, r *http.Request) bool // answers, if it wants to
	after   func(r *http.Request)
}

func (f *fake) handle() string { f.n++; return fmt.Sprintf("%032d", f.n) }

// put keeps a set as if by hand.
func (f *fake) put(kind, name string, values ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := set{name: name, kind: kind, ttl: 300, values: values}
	for range values {
		s.handles = append(s.handles, f.handle())
	}
	f.sets[kind+" "+name] = s
}

func (f *fake) values(name string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, kind := range []string{"A", "AAAA", "CNAME"} {
		out = append(out, f.sets[kind+" "+name].values...)
	}
	return out
}

// swap carries out a change as a whole, if all that goes is as it was.
func (f *fake) swap(away, add []set) bool {
	for _, s := range away {
		old, is := f.sets[s.kind+" "+s.name]
		if !f.blind && (!is || old.ttl != s.ttl || !slices.Equal(old.values, s.values)) {
			return false
		}
	}
	for _, s := range add {
		gone := slices.ContainsFunc(away, func(o set) bool { return o.kind == s.kind && o.name == s.name })
		if _, is := f.sets[s.kind+" "+s.name]; is && !gone && !f.blind {
			return false
		}
	}
	for _, s := range away {
		delete(f.sets, s.kind+" "+s.name)
	}
	for _, s := range add {
		f.sets[s.kind+" "+s.name] = s
	}
	f.changes++
	return true
}

func (f *fake) route53(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AKIA/") || !strings.Contains(r.Header.Get("Authorization"), "/us-east-1/route53/aws4_request") {
		http.Error(w, "unsigned", http.StatusForbidden)
		return
	}
	if r.Method == http.MethodGet {
		var out struct {
			XMLName xml.Name     `xml:"https://route53.amazonaws.com/doc/2013-04-01/ ListResourceRecordSetsResponse"`
			Sets    []route53Set `xml:"ResourceRecordSets>ResourceRecordSet"`
		}
		for _, s := range f.sets {
			one := route53Set{Name: strings.Replace(s.name, "*", `\052`, 1) + ".", Type: s.kind, TTL: s.ttl}
			for _, v := range s.values {
				one.Records = append(one.Records, route53Value{v})
			}
			if s.odd != "" {
				one.AliasTarget = &struct{ DNSName string }{s.odd}
			}
			out.Sets = append(out.Sets, one)
		}
		_ = xml.NewEncoder(w).Encode(out)
		return
	}
	var batch struct {
		Changes []route53Change `xml:"ChangeBatch>Changes>Change"`
	}
	body, _ := io.ReadAll(r.Body)
	if err := xml.Unmarshal(body, &batch); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var away, add []set
	for _, c := range batch.Changes {
		s := set{name: strings.TrimSuffix(c.Set.Name, "."), kind: c.Set.Type, ttl: c.Set.TTL}
		for _, v := range c.Set.Records {
			s.values = append(s.values, v.Value)
		}
		if c.Action == "DELETE" {
			away = append(away, s)
		} else {
			add = append(add, s)
		}
	}
	if !f.swap(away, add) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `<?xml version="1.0"?><InvalidChangeBatch xmlns="https://route53.amazonaws.com/doc/2013-04-01/"><Messages><Message>Tried to delete resource record set [name='x.', type='TXT'] but it was not found</Message></Messages></InvalidChangeBatch>`)
	}
}

func (f *fake) google(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer token-1" {
		http.Error(w, "no token", http.StatusUnauthorized)
		return
	}
	if r.Method == http.MethodGet {
		var all []set
		for _, s := range f.sets {
			if s.name+"." == r.URL.Query().Get("name") {
				all = append(all, s)
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"rrsets": googleSets(all)})
		return
	}
	var change struct{ Deletions, Additions []googleSet }
	if err := json.NewDecoder(r.Body).Decode(&change); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	sets := func(all []googleSet) (out []set) {
		for _, s := range all {
			out = append(out, set{name: strings.TrimSuffix(s.Name, "."), kind: s.Type, ttl: s.TTL, values: s.Data})
		}
		return out
	}
	if !f.swap(sets(change.Deletions), sets(change.Additions)) {
		w.WriteHeader(http.StatusPreconditionFailed)
		_, _ = io.WriteString(w, `{"error":{"code":412,"message":"Precondition not met for 'entity.change.deletions[0]'","errors":[{"domain":"global","reason":"conditionNotMet","message":"Precondition not met for 'entity.change.deletions[0]'"}]}}`)
	}
}

func (f *fake) cloudflare(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer token-1" {
		http.Error(w, "no token", http.StatusForbidden)
		return
	}
	if r.Method == http.MethodGet {
		var all []cloudflareRecord
		for _, s := range f.sets {
			for i, v := range s.values {
				all = append(all, cloudflareRecord{ID: s.handles[i], Name: s.name, Type: s.kind, Content: v, TTL: s.ttl, Proxied: s.proxied})
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"success": true, "result": all})
		return
	}
	var batch struct{ Deletes, Posts []cloudflareRecord }
	if err := json.NewDecoder(r.Body).Decode(&batch); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	next := map[string]set{}
	left := len(batch.Deletes)
	for key, s := range f.sets {
		kept := set{name: s.name, kind: s.kind, ttl: s.ttl, proxied: s.proxied}
		for i, id := range s.handles {
			if slices.ContainsFunc(batch.Deletes, func(d cloudflareRecord) bool { return d.ID == id }) {
				left--
				continue
			}
			kept.values, kept.handles = append(kept.values, s.values[i]), append(kept.handles, id)
		}
		if len(kept.values) > 0 {
			next[key] = kept
		}
	}
	if left > 0 && !f.blind {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"success":false,"errors":[{"code":81044,"message":"Record does not exist."}],"result":null}`)
		return
	}
	for _, p := range batch.Posts {
		s := next[p.Type+" "+p.Name]
		s.name, s.kind, s.ttl, s.proxied = p.Name, p.Type, p.TTL, p.Proxied
		s.values, s.handles = append(s.values, p.Content), append(s.handles, f.handle())
		next[p.Type+" "+p.Name] = s
	}
	f.sets = next
	f.changes++
	_, _ = io.WriteString(w, `{"success":true,"errors":[],"result":{}}`)
}

func (f *fake) azure(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer token-1" {
		http.Error(w, "no token", http.StatusUnauthorized)
		return
	}
	parts := strings.Split(r.URL.Path, "/")
	kind, name := parts[len(parts)-2], parts[len(parts)-1]+".example.com"
	old, is := f.sets[kind+" "+name]
	if match := r.Header.Get("If-Match"); r.Method != http.MethodGet && !f.blind && (match != "" && (!is || old.handles[0] != match) || r.Header.Get("If-None-Match") == "*" && is) {
		w.WriteHeader(http.StatusPreconditionFailed)
		_, _ = io.WriteString(w, `{"code":"PreconditionFailed","message":"The condition in the If-Match header was not satisfied."}`)
		return
	}
	switch r.Method {
	case http.MethodGet:
		if !is {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"code":"NotFound","message":"The resource record was not found."}`)
			return
		}
		out := encodeAzure(old)
		out.Etag = old.handles[0]
		_ = json.NewEncoder(w).Encode(out)
	case http.MethodPut:
		var s azureSet
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		one := s.decode(name, kind)
		one.handles = []string{f.handle()}
		f.sets[kind+" "+name] = one
		f.changes++
	case http.MethodDelete:
		delete(f.sets, kind+" "+name)
		f.changes++
	}
}

var accountKey = sync.OnceValue(func() string {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
})

// secretOf are good keys.
func secretOf(p plan.Provider) map[string][]byte {
	text := map[plan.Provider]map[string]string{
		plan.ProviderRoute53:    {"access-key-id": "AKIA", "secret-access-key": "s", "hosted-zone-id": "Z1"},
		plan.ProviderCloudflare: {"api-token": "token-1", "zone-id": "z1"},
		plan.ProviderAzure:      {"tenant-id": "t", "client-id": "c", "client-secret": "s", "subscription-id": "u", "resource-group": "g"},
	}[p]
	if p == plan.ProviderGoogle {
		account, _ := json.Marshal(map[string]string{"client_email": "a@b", "private_key": accountKey(), "project_id": "p"})
		text = map[string]string{"service-account": string(account), "managed-zone": "example"}
	}
	out := map[string][]byte{}
	for k, v := range text {
		out[k] = []byte(v + "\n")
	}
	return out
}

// start serves a provider's API; www leads to east.
func start(t *testing.T, p plan.Provider) (*fake, Options) {
	t.Helper()
	f := &fake{sets: map[string]set{}}
	f.put("A", "www.example.com", "192.0.2.1")
	f.put("A", "www2.example.com", "192.0.2.99")
	speak := map[plan.Provider]http.HandlerFunc{
		plan.ProviderRoute53: f.route53, plan.ProviderCloudflare: f.cloudflare, plan.ProviderAzure: f.azure, plan.ProviderGoogle: f.google,
	}[p]
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/login") {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"access_token":"token-1","token_type":"Bearer","expires_in":3600}`)
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.instead != nil && f.instead(w, r) {
			return
		}
		speak(w, r)
		if f.after != nil {
			f.after(r)
		}
	}))
	t.Cleanup(s.Close)
	return f, Options{Now: time.Now, API: s.URL, Login: s.URL + "/login", Client: s.Client()}
}
