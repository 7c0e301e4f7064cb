package cloud

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/traffic/names"
)

// exchange is one call and its answer, written by hand from the services' documentation
// and not from this package's types: a field that is spelled wrongly on both sides of a
// stand-in would not be seen. Nothing of it was recorded from a service.
type exchange struct {
	call   string // METHOD ADDRESS
	header string // NAME: VALUE that it must have
	body   string // JSON or XML; spaces mean nothing
	code   int
	answer string
}

const (
	guardText  = `"davit1" "site=west" "run=run-1" "seq=2" "epoch.shop=7" "was=192.0.2.1"`
	awsSpace   = `xmlns="https://route53.amazonaws.com/doc/2013-04-01/"`
	awsSets    = "/2013-04-01/hostedzone/Z1/rrset"
	googleZone = "/dns/v1/projects/p/managedZones/example"
	azureZone  = "/subscriptions/u/resourceGroups/g/providers/Microsoft.Network/dnsZones/example.com/"
	version    = "?api-version=2018-05-01"
	azureNone  = `{"code":"NotFound","message":"The resource record 'www' does not exist in resource group 'g' of subscription 'u'."}`
)

// readings are how each service is asked where www leads, and that it has no guard.
var readings = map[plan.Provider][]exchange{
	plan.ProviderRoute53: {
		{"GET " + awsSets + "?maxitems=20&name=www.example.com.", "", "", 200, `<?xml version="1.0" encoding="UTF-8"?>
<ListResourceRecordSetsResponse ` + awsSpace + `><ResourceRecordSets><ResourceRecordSet><Name>www.example.com.</Name><Type>A</Type><TTL>300</TTL>
<ResourceRecords><ResourceRecord><Value>192.0.2.1</Value></ResourceRecord></ResourceRecords></ResourceRecordSet>
<ResourceRecordSet><Name>www2.example.com.</Name><Type>A</Type><TTL>60</TTL><ResourceRecords><ResourceRecord><Value>192.0.2.99</Value></ResourceRecord></ResourceRecords></ResourceRecordSet>
</ResourceRecordSets><IsTruncated>false</IsTruncated><MaxItems>20</MaxItems></ListResourceRecordSetsResponse>`},
		{"GET " + awsSets + "?maxitems=20&name=_davit.www.example.com.", "", "", 200, `<?xml version="1.0" encoding="UTF-8"?>
<ListResourceRecordSetsResponse ` + awsSpace + `><ResourceRecordSets><ResourceRecordSet><Name>www.example.com.</Name><Type>A</Type><TTL>300</TTL>
<ResourceRecords><ResourceRecord><Value>192.0.2.1</Value></ResourceRecord></ResourceRecords></ResourceRecordSet></ResourceRecordSets><IsTruncated>false</IsTruncated><MaxItems>20</MaxItems></ListResourceRecordSetsResponse>`},
	},
	plan.ProviderGoogle: {
		{"GET " + googleZone + "/rrsets?name=www.example.com.", "Authorization: Bearer token-1", "", 200, `{"kind":"dns#resourceRecordSetsListResponse","rrsets":[
{"kind":"dns#resourceRecordSet","name":"www.example.com.","type":"A","ttl":300,"rrdatas":["192.0.2.1"],"signatureRrdatas":[]}],"header":{"operationId":"1"}}`},
		{"GET " + googleZone + "/rrsets?name=_davit.www.example.com.", "", "", 200, `{"kind":"dns#resourceRecordSetsListResponse","rrsets":[]}`},
	},
	plan.ProviderCloudflare: {
		{"GET /zones/z1/dns_records?per_page=100&name=www.example.com", "Authorization: Bearer token-1", "", 200, `{"result":[{"id":"023e105f4ecef8ad9ca31a8372d0c353","name":"www.example.com","type":"A",
"content":"192.0.2.1","proxiable":true,"proxied":false,"ttl":300,"settings":{},"meta":{},"comment":null,"tags":[],"created_on":"2026-01-01T05:20:00.12345Z","modified_on":"2026-01-01T05:20:00.12345Z"}],
"success":true,"errors":[],"messages":[],"result_info":{"page":1,"per_page":100,"count":1,"total_count":1,"total_pages":1}}`},
		{"GET /zones/z1/dns_records?per_page=100&name=_davit.www.example.com", "", "", 200, `{"result":[],"success":true,"errors":[],"messages":[],"result_info":{"page":1,"per_page":100,"count":0,"total_count":0,"total_pages":1}}`},
	},
	plan.ProviderAzure: {
		{"GET " + azureZone + "A/www" + version, "Authorization: Bearer token-1", "", 200, `{"id":"/subscriptions/u/resourceGroups/g/providers/Microsoft.Network/dnszones/example.com/A/www","name":"www",
"type":"Microsoft.Network/dnszones/A","etag":"e-1","properties":{"metadata":{"owner":"web"},"TTL":300,"fqdn":"www.example.com.","provisioningState":"Succeeded","ARecords":[{"ipv4Address":"192.0.2.1"}],"targetResource":{}}}`},
		{"GET " + azureZone + "AAAA/www" + version, "", "", 404, azureNone},
		{"GET " + azureZone + "CNAME/www" + version, "", "", 404, azureNone},
		{"GET " + azureZone + "TXT/_davit.www" + version, "", "", 404, azureNone},
	},
}

// moves are the calls with which www is moved; their answers are each case's own.
var moves = map[plan.Provider][]exchange{
	plan.ProviderRoute53: {{call: "POST " + awsSets, header: "Content-Type: application/xml", body: `<?xml version="1.0" encoding="UTF-8"?>
<ChangeResourceRecordSetsRequest ` + awsSpace + `><ChangeBatch><Changes>
<Change><Action>DELETE</Action><ResourceRecordSet><Name>www.example.com.</Name><Type>A</Type><TTL>300</TTL><ResourceRecords><ResourceRecord><Value>192.0.2.1</Value></ResourceRecord></ResourceRecords></ResourceRecordSet></Change>
<Change><Action>CREATE</Action><ResourceRecordSet><Name>_davit.www.example.com.</Name><Type>TXT</Type><TTL>30</TTL><ResourceRecords><ResourceRecord><Value>` + strings.ReplaceAll(guardText, `"`, "&#34;") + `</Value></ResourceRecord></ResourceRecords></ResourceRecordSet></Change>
<Change><Action>CREATE</Action><ResourceRecordSet><Name>www.example.com.</Name><Type>A</Type><TTL>30</TTL><ResourceRecords><ResourceRecord><Value>192.0.2.2</Value></ResourceRecord></ResourceRecords></ResourceRecordSet></Change>
</Changes></ChangeBatch></ChangeResourceRecordSetsRequest>`}},
	plan.ProviderGoogle: {{call: "POST " + googleZone + "/changes", header: "Content-Type: application/json", body: `{"kind":"dns#change",
"deletions":[{"kind":"dns#resourceRecordSet","name":"www.example.com.","type":"A","ttl":300,"rrdatas":["192.0.2.1"]}],
"additions":[{"kind":"dns#resourceRecordSet","name":"_davit.www.example.com.","type":"TXT","ttl":30,"rrdatas":[` + quotedJSON(guardText) + `]},
{"kind":"dns#resourceRecordSet","name":"www.example.com.","type":"A","ttl":30,"rrdatas":["192.0.2.2"]}]}`}},
	plan.ProviderCloudflare: {{call: "POST /zones/z1/dns_records/batch", header: "Content-Type: application/json", body: `{"deletes":[{"id":"023e105f4ecef8ad9ca31a8372d0c353"}],
"posts":[{"name":"_davit.www.example.com","type":"TXT","content":` + quotedJSON(guardText) + `,"ttl":60},{"name":"www.example.com","type":"A","content":"192.0.2.2","ttl":60}]}`}},
	plan.ProviderAzure: {
		{call: "PUT " + azureZone + "TXT/_davit.www" + version, header: "If-None-Match: *", body: `{"properties":{"TTL":30,"TXTRecords":[{"value":["davit1","site=west","run=run-1","seq=2","epoch.shop=7","was=192.0.2.1"]}]}}`},
		{call: "PUT " + azureZone + "A/www" + version, header: "If-Match: e-1", body: `{"properties":{"metadata":{"owner":"web","davit":"run-1 2"},"TTL":30,"ARecords":[{"ipv4Address":"192.0.2.2"}]}}`},
	},
}

// said is an answer to a move.
type said struct {
	code   int
	answer string
}

const (
	awsPending = `<?xml version="1.0" encoding="UTF-8"?><ChangeResourceRecordSetsResponse ` + awsSpace + `><ChangeInfo><Id>/change/C2682N5HXP0BZ4</Id><Status>PENDING</Status><SubmittedAt>2026-01-01T01:36:41.958Z</SubmittedAt></ChangeInfo></ChangeResourceRecordSetsResponse>`
	azurePut   = `{"name":"www","type":"Microsoft.Network/dnszones/A","etag":"e-2","properties":{"TTL":30,"fqdn":"www.example.com.","provisioningState":"Succeeded"}}`
	azureAged  = `{"code":"PreconditionFailed","message":"The condition '*' in the If-None-Match header was not satisfied. The current was 'e-9'."}`
)

// answers to a move: done as a whole, compared and refused, half done, throttled, without
// rights, of no zone that the service knows. What want is: done, changed, or what the error says.
var answers = map[plan.Provider]map[string][]said{
	plan.ProviderRoute53: {
		"done":                       {{200, awsPending}},
		"changed":                    {{400, `<?xml version="1.0" encoding="UTF-8"?><InvalidChangeBatch ` + awsSpace + `><Messages><Message>Tried to delete resource record set [name='www.example.com.', type='A'] but the values provided do not match the current values</Message></Messages></InvalidChangeBatch>`}},
		"changed, by one in the way": {{400, `<?xml version="1.0"?><ErrorResponse ` + awsSpace + `><Error><Type>Sender</Type><Code>InvalidChangeBatch</Code><Message>[Tried to create resource record set [name='_davit.www.example.com.', type='TXT'] but it already exists]</Message></Error><RequestId>b25f48e8-84fd-11e6-80d9-574e0c4664cb</RequestId></ErrorResponse>`}},
		"it throttles":               {{400, `<?xml version="1.0"?><ErrorResponse ` + awsSpace + `><Error><Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>`}},
		"it throttles, for another":  {{400, `<?xml version="1.0"?><ErrorResponse ` + awsSpace + `><Error><Type>Sender</Type><Code>PriorRequestNotComplete</Code><Message>The request was rejected because Route 53 was still processing a prior request.</Message></Error></ErrorResponse>`}},
		"does not allow it":          {{403, `<?xml version="1.0"?><ErrorResponse ` + awsSpace + `><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User: arn:aws:iam::1:user/dr is not authorized to perform: route53:ChangeResourceRecordSets</Message></Error></ErrorResponse>`}},
		"does not know the zone":     {{404, `<?xml version="1.0"?><ErrorResponse ` + awsSpace + `><Error><Type>Sender</Type><Code>NoSuchHostedZone</Code><Message>No hosted zone found with ID: Z1</Message></Error></ErrorResponse>`}},
	},
	plan.ProviderGoogle: {
		"done":                       {{200, `{"kind":"dns#change","id":"7","startTime":"2026-01-01T00:00:00.000Z","status":"pending","isServing":false}`}},
		"changed":                    {{412, `{"error":{"code":412,"message":"Precondition not met for 'entity.change.deletions[0]'","errors":[{"domain":"global","reason":"conditionNotMet","message":"Precondition not met for 'entity.change.deletions[0]'","location":"If-Match","locationType":"header"}]}}`}},
		"changed, by its other name": {{412, `{"error":{"code":412,"message":"Precondition not met for 'entity.change.deletions[0]'","errors":[{"domain":"global","reason":"preconditionFailed","message":"Precondition not met for 'entity.change.deletions[0]'"}]}}`}},
		"changed, by one in the way": {{409, `{"error":{"code":409,"message":"The resource 'entity.change.additions[0]' named '_davit.www.example.com. (TXT)' already exists","errors":[{"domain":"global","reason":"alreadyExists","message":"The resource 'entity.change.additions[0]' named '_davit.www.example.com. (TXT)' already exists"}]}}`}},
		"changed, by one that went":  {{404, `{"error":{"code":404,"message":"The 'entity.change.deletions[0]' resource named 'www.example.com. (A)' does not exist.","errors":[{"domain":"global","reason":"notFound","message":"The 'entity.change.deletions[0]' resource named 'www.example.com. (A)' does not exist."}]}}`}},
		"it throttles":               {{403, `{"error":{"code":403,"message":"Rate Limit Exceeded","errors":[{"domain":"usageLimits","reason":"rateLimitExceeded","message":"Rate Limit Exceeded"}]}}`}},
		"does not allow it":          {{403, `{"error":{"code":403,"message":"Forbidden","errors":[{"domain":"global","reason":"forbidden","message":"Forbidden"}]}}`}},
		"does not know the zone":     {{404, `{"error":{"code":404,"message":"The 'parameters.managedZone' resource named 'example' does not exist.","errors":[{"domain":"global","reason":"notFound","message":"The 'parameters.managedZone' resource named 'example' does not exist."}]}}`}},
	},
	plan.ProviderCloudflare: {
		"done":                   {{200, `{"result":{"deletes":[{"id":"023e105f4ecef8ad9ca31a8372d0c353"}],"patches":null,"puts":null,"posts":[{"id":"1"},{"id":"2"}]},"success":true,"errors":[],"messages":[]}`}},
		"changed":                {{404, `{"success":false,"errors":[{"code":81044,"message":"Record does not exist."}],"messages":[],"result":null}`}},
		"it throttles":           {{429, `{"success":false,"errors":[{"code":971,"message":"Please wait and consider throttling your request speed"}],"messages":[],"result":null}`}},
		"does not allow it":      {{403, `{"success":false,"errors":[{"code":10000,"message":"Authentication error"}],"messages":[],"result":null}`}},
		"does not know the zone": {{404, `{"success":false,"errors":[{"code":7003,"message":"Could not route to /zones/z1/dns_records/batch, perhaps your object identifier is invalid?"}],"messages":[],"result":null}`}},
	},
	plan.ProviderAzure: {
		"done":                   {{201, azurePut}, {200, azurePut}},
		"changed":                {{412, azureAged}},
		"changed, half way":      {{201, azurePut}, {412, azureAged}},
		"it throttles":           {{429, `{"error":{"code":"TooManyRequests","message":"The request was throttled."}}`}},
		"it throttles, half way": {{201, azurePut}, {429, `{"error":{"code":"TooManyRequests","message":"The request was throttled."}}`}},
		"does not allow it":      {{403, `{"error":{"code":"AuthorizationFailed","message":"The client 'c' does not have authorization to perform action 'Microsoft.Network/dnszones/TXT/write'."}}`}},
		"does not know the zone": {{404, `{"error":{"code":"ParentResourceNotFound","message":"Can not perform requested operation on nested resource. Parent resource 'example.com' not found."}}`}},
	},
}

func quotedJSON(s string) string {
	text, _ := json.Marshal(s) // a string
	return string(text)
}

// alike tells whether two bodies say the same.
func alike(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil {
		return reflect.DeepEqual(x, y)
	}
	squeeze := func(s string) string { return strings.ReplaceAll(s, "\n", "") }
	return squeeze(a) == squeeze(b)
}

// replay answers calls in their order, and complains of any other.
func replay(t *testing.T, script []exchange) (o Options, left func() int) {
	t.Helper()
	next := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/login") {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"access_token":"token-1","token_type":"Bearer","expires_in":3600}`)
			return
		}
		body, _ := io.ReadAll(r.Body)
		if next == len(script) {
			t.Errorf("one call too many: %s %s %s", r.Method, r.URL, body)
			return
		}
		want := script[next]
		next++
		if got := r.Method + " " + r.URL.String(); got != want.call || !alike(string(body), want.body) {
			t.Errorf("%s\n%s\nwant %s\n%s", got, body, want.call, want.body)
		}
		if name, value, is := strings.Cut(want.header, ": "); is && r.Header.Get(name) != value {
			t.Errorf("%s: its %s is %q, want %q", want.call, name, r.Header.Get(name), value)
		}
		w.WriteHeader(want.code)
		_, _ = io.WriteString(w, want.answer)
	}))
	t.Cleanup(s.Close)
	return Options{Now: time.Now, API: s.URL, Login: s.URL + "/login", Client: s.Client()}, func() int { return len(script) - next }
}

// TestExchanges moves a name by the very calls of the documentation.
func TestExchanges(t *testing.T) {
	for p, cases := range answers {
		for want, answers := range cases {
			t.Run(string(p)+"/"+want, func(t *testing.T) {
				script := append([]exchange{}, readings[p]...)
				for i, a := range answers {
					call := moves[p][i]
					call.code, call.answer = a.code, a.answer
					script = append(script, call)
				}
				o, left := replay(t, script)
				record := newRun(t, p, o).record
				record.To["west"] = []string{"192.0.2.2"}
				s, _, err := Open(&record, secretOf(p), o)
				if err != nil {
					t.Fatal(err)
				}
				seen, err := s.Read(t.Context(), "example.com", www)
				if err != nil || len(seen.Values) != 1 || seen.Values[0] != "192.0.2.1" {
					t.Fatalf("%+v, %v", seen, err)
				}
				m := names.MoveOf(www, &record, "west", failover.Token{Run: "run-1", Sequence: 2, Epochs: map[string]int64{"shop": 7}})
				err = s.Swap(t.Context(), m, seen, m.To, m.After(seen))
				is, _, _ := strings.Cut(want, ",")
				var refused *names.RefusedError
				switch {
				case is == "done" && err != nil, is == "changed" && !errors.Is(err, names.ErrChanged):
					t.Errorf("%v", err)
				case is != "done" && is != "changed" && (err == nil || !strings.Contains(err.Error(), is)):
					t.Errorf("%v, want that %q", err, is)
				case strings.HasPrefix(is, "does") != errors.As(err, &refused):
					t.Errorf("%v: refused for good: %t", err, refused != nil)
				}
				if n := left(); n != 0 {
					t.Errorf("%d calls were not made", n)
				}
			})
		}
	}
}
