package s3_test

import (
	"context"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/lock"
	"davit.dev/davit/internal/vault/s3"
)

// fakeOptions point at a server that is not S3 but says what we want to hear.
func fakeOptions(endpoint string) s3.Options {
	return s3.Options{
		Endpoint: endpoint, Bucket: "bucket", PathStyle: true, InsecureHTTP: true,
		AccessKey: "access", SecretKey: "very-secret", Stall: 300 * time.Millisecond,
	}
}

func open(t *testing.T, opt s3.Options) *s3.Store {
	t.Helper()
	s, err := s3.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func serve(t *testing.T, handler http.HandlerFunc) *s3.Store {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return open(t, fakeOptions(server.URL))
}

func putOnce(ctx context.Context, s vault.Store) error {
	return s.PutIfAbsent(ctx, "key", strings.NewReader("data"), 4)
}

func TestAnswersHaveMeaning(t *testing.T) {
	tests := []struct {
		status int
		code   string
		want   error // nil: none of the Store's
		says   string
	}{
		{404, "NoSuchKey", vault.ErrNotFound, ""},
		{404, "Surprise", nil, "Surprise"},
		{404, "NoSuchBucket", nil, "create it"},
		{412, "PreconditionFailed", vault.ErrExists, ""},
		{403, "InvalidAccessKeyId", vault.ErrDenied, "secret key is wrong"},
		{403, "SignatureDoesNotMatch", vault.ErrDenied, "secret key is wrong"},
		{403, "AccessDenied", vault.ErrDenied, "grant"},
		{403, "RequestTimeTooSkewed", vault.ErrDenied, "clock"},
		{400, "ExpiredToken", vault.ErrDenied, "session token"},
		{400, "AuthorizationHeaderMalformed", vault.ErrDenied, "region us-east-1 is wrong"},
		{501, "NotImplemented", vault.ErrDenied, "lacks"},
		{409, "ConditionalRequestConflict", vault.ErrUnavailable, ""},
		{429, "TooManyRequests", vault.ErrUnavailable, ""},
		{500, "InternalError", vault.ErrUnavailable, ""},
		{503, "SlowDown", vault.ErrUnavailable, ""},
		{504, "Whatever", vault.ErrUnavailable, ""},
		{400, "InvalidRequest", nil, "InvalidRequest"},
	}
	kinds := []error{vault.ErrNotFound, vault.ErrExists, vault.ErrDenied, vault.ErrUnavailable}
	for _, test := range tests {
		requests := 0
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/key") {
				requests++
				if r.Header.Get("If-None-Match") != "*" {
					t.Error("put-if-absent without If-None-Match: *")
				}
			}
			w.WriteHeader(test.status)
			fmt.Fprintf(w, "<Error><Code>%s</Code><Message>the server's words</Message></Error>", test.code)
		})
		err := putOnce(t.Context(), s)
		for _, kind := range kinds {
			if errors.Is(err, kind) != (kind == test.want) { //nolint:errorlint // the very error
				t.Errorf("%s: %v is %v: %v", test.code, err, kind, errors.Is(err, kind))
			}
		}
		if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "very-secret") {
			t.Errorf("%s: %v, want it to say %q", test.code, err, test.says)
		}
		if requests != 1 {
			t.Errorf("%s: sent %d times, want once: only retry knows what it means", test.code, requests)
		}
	}
}

// TestNoRoomForADirectory: a server on a full disk gives no reason for a put that would have needed a directory. Another
// put, which needs none, tells; but what is there all the same was put.
func TestNoRoomForADirectory(t *testing.T) {
	for name, test := range map[string]struct {
		code         string // of the answer to the put
		probe, there int    // what the server answers to the other put, and to whether the object is there
		want, not    error
	}{
		"full":          {"InternalError", http.StatusInsufficientStorage, http.StatusNotFound, vault.ErrFull, vault.ErrUnavailable},
		"full, it says": {"ExistingObjectIsDirectory", http.StatusInsufficientStorage, http.StatusNotFound, vault.ErrFull, vault.ErrUnavailable},
		"room enough":   {"InternalError", http.StatusOK, http.StatusNotFound, vault.ErrUnavailable, vault.ErrFull},
		"put":           {"InternalError", http.StatusInsufficientStorage, http.StatusOK, vault.ErrUnavailable, vault.ErrFull},
		"troubled":      {"InternalError", http.StatusInternalServerError, http.StatusNotFound, vault.ErrUnavailable, vault.ErrFull},
		"overloaded":    {"SlowDown", http.StatusInsufficientStorage, http.StatusNotFound, vault.ErrUnavailable, vault.ErrFull},
	} {
		left := 0
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Last-Modified", time.Unix(0, 0).UTC().Format(http.TimeFormat))
			switch own := strings.HasSuffix(r.URL.Path, "/key"); {
			case own && r.Method == http.MethodHead:
				w.WriteHeader(test.there)
			case own:
				w.WriteHeader(map[string]int{"ExistingObjectIsDirectory": http.StatusConflict, "SlowDown": http.StatusServiceUnavailable, "InternalError": http.StatusInternalServerError}[test.code])
				fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", test.code)
			case r.Method == http.MethodPut:
				left++
				w.WriteHeader(test.probe)
			case r.Method == http.MethodDelete:
				left--
				w.WriteHeader(http.StatusNoContent)
			}
		})
		if err := putOnce(t.Context(), s); !errors.Is(err, test.want) || errors.Is(err, test.not) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if test.probe == http.StatusOK && left != 0 {
			t.Errorf("%s: the other put is left", name)
		}
	}
}

func TestStallsResetsAndSilence(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	handlers := map[string]http.HandlerFunc{
		"stall before the answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"stall in the body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "part")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"reset": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.(*net.TCPConn).SetLinger(0)
				_ = conn.Close()
			}
		},
		"short body": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Header().Set("Last-Modified", time.Now().Format(http.TimeFormat))
			_, _ = io.WriteString(w, "part")
		},
	}
	for name, handler := range handlers {
		t.Run(name, func(t *testing.T) {
			s := serve(t, handler)
			r, err := s.Get(t.Context(), "key", 0, -1)
			if err == nil {
				_, err = io.ReadAll(r)
				_ = r.Close()
			}
			if !errors.Is(err, vault.ErrUnavailable) {
				t.Errorf("Get = %v, want ErrUnavailable", err)
			}
		})
	}
	if err := putOnce(t.Context(), open(t, fakeOptions(closed.URL))); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("nobody listens: %v, want ErrUnavailable", err)
	}
}

func TestPrivateCA(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	opt := fakeOptions(server.URL)
	opt.InsecureHTTP = false
	err := putOnce(t.Context(), open(t, opt))
	if err == nil || errors.Is(err, vault.ErrUnavailable) || !errors.Is(err, s3.ErrUntrusted) || !strings.Contains(err.Error(), "give its CA") {
		t.Errorf("an unknown authority: %v, want advice and no retry", err)
	}
	opt.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := putOnce(t.Context(), open(t, opt)); err != nil {
		t.Errorf("with the CA: %v", err)
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	opt.Endpoint = "https" + strings.TrimPrefix(plain.URL, "http")
	if err := putOnce(t.Context(), open(t, opt)); err == nil || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Errorf("https to a plain server: %v", err)
	}
}

func TestBadOptions(t *testing.T) {
	good := fakeOptions("http://127.0.0.1:1")
	spoil := map[string]func(*s3.Options){
		"no bucket given":   func(o *s3.Options) { o.Bucket = "" },
		"key is missing":    func(o *s3.Options) { o.SecretKey = "" },
		"has no TLS":        func(o *s3.Options) { o.InsecureHTTP = false },
		"want https://HOST": func(o *s3.Options) { o.Endpoint = "ftp://host" },
		"prefix":            func(o *s3.Options) { o.Prefix = "a/../b" },
		"PEM":               func(o *s3.Options) { o.Endpoint, o.CA = "https://127.0.0.1:1", []byte("x") },
	}
	for says, change := range spoil {
		opt := good
		change(&opt)
		if _, err := s3.Open(opt); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Open = %v, want it to say %q", err, says)
		}
	}
}

func TestUnorderedListIsRefused(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `<ListBucketResult><Contents><Key>b</Key><Size>1</Size></Contents><Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>`)
	})
	err := s.List(t.Context(), "", func(vault.ObjectInfo) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "byte order") {
		t.Errorf("List = %v", err)
	}
}

func TestLiveRefusals(t *testing.T) {
	good := live(t)
	denied := good
	denied.SecretKey += "x"
	if err := putOnce(t.Context(), open(t, denied)); !errors.Is(err, vault.ErrDenied) {
		t.Errorf("a wrong key: %v, want ErrDenied", err)
	}
	stranger := good
	stranger.AccessKey = "nobody"
	if err := putOnce(t.Context(), open(t, stranger)); !errors.Is(err, vault.ErrDenied) {
		t.Errorf("an unknown key: %v, want ErrDenied", err)
	}
	elsewhere := good
	elsewhere.Region = "mars-north-1"
	if err := putOnce(t.Context(), open(t, elsewhere)); !errors.Is(err, vault.ErrDenied) || !strings.Contains(err.Error(), "region mars-north-1 is wrong") {
		t.Errorf("a wrong region: %v, want advice", err)
	}
	missing := good
	missing.Bucket += "-missing"
	if err := putOnce(t.Context(), open(t, missing)); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("a missing bucket: %v, want advice", err)
	}
}

// TestPutNamesItsLength: a body goes out under its length and whole digest,
// an empty one too. One sent in chunks has its end left unread by servers that
// answer early, and the next request on that connection is garbled.
func TestPutNamesItsLength(t *testing.T) {
	for _, body := range []string{"", "data"} {
		s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			sum := fmt.Sprintf("%x", sha256.Sum256([]byte(body)))
			if len(r.TransferEncoding) > 0 || r.ContentLength != int64(len(body)) || r.Header.Get("X-Amz-Content-Sha256") != sum {
				t.Errorf("%q: encodings %v, length %d, digest %s", body, r.TransferEncoding, r.ContentLength, r.Header.Get("X-Amz-Content-Sha256"))
			}
		})
		if err := s.Put(t.Context(), "key", strings.NewReader(body), int64(len(body))); err != nil {
			t.Errorf("Put(%q): %v", body, err)
		}
	}
}

// TestLockOfWhatWasRemoved: where a point is removed while locks are prolonged, AWS answers
// for the mark of its deletion. That it is gone is no refusal; of what is there, it is.
func TestLockOfWhatWasRemoved(t *testing.T) {
	for status, want := range map[int]error{http.StatusNotFound: vault.ErrNotFound, http.StatusOK: vault.ErrDenied} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(status)
				return
			}
			w.WriteHeader(http.StatusMethodNotAllowed)
			fmt.Fprint(w, "<Error><Code>MethodNotAllowed</Code><Message>The specified method is not allowed against this resource.</Message></Error>")
		})
		if err := s.Lock(t.Context(), "key", lock.Governance, time.Now().Add(time.Hour)); !errors.Is(err, want) {
			t.Errorf("asked for the object, it says %d: %v, want %v", status, err, want)
		}
	}
}
