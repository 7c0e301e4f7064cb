package apps

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

const wordpressPosts = 10

var wordpress = App{
	Name: "wordpress", Images: []string{"app-mariadb", "app-wordpress"},
	Loaded:    "WordPress set up through its own pages, 10 posts and an uploaded file through its API, a session that is logged in; MariaDB behind it",
	workloads: []string{"statefulset/mariadb", "deployment/wordpress"},
	load:      loadWordPress, check: checkWordPress, write: writeWordPress,
}

const wordpressPod = "deployment/wordpress"

// curl asks for a page of the site, by its name.
const curl = `curl --silent --show-error --max-time 60 -H 'Host: wordpress' http://127.0.0.1:8080`

// wordpressInstall is what a person does in the browser first.
const wordpressInstall = curl + `/wp-admin/install.php?step=2 -d weblog_title=Harbour -d user_name=ann --data-urlencode "admin_password=$ADMIN_PASSWORD" ` +
	`--data-urlencode "admin_password2=$ADMIN_PASSWORD" -d pw_weak=1 -d admin_email=ann@example.com -d blog_public=0 -d language= | grep -q Success && echo done`

// wordpressKnown is what must be there again.
type wordpressKnown struct {
	cookie string // of a session
	upload string // path of the uploaded file
}

func loadWordPress(ctx context.Context, p Place) (any, error) {
	if err := p.expect(ctx, "set up", wordpressPod, wordpressInstall, "done"); err != nil {
		return nil, err
	}
	for i := range wordpressPosts {
		if _, err := wordpressPost(ctx, p, fmt.Sprintf("Ship %d", i), fmt.Sprintf("It carried %d barrels.", i*i)); err != nil {
			return nil, err
		}
	}
	var known wordpressKnown
	answer, err := wordpressCall(ctx, p, "wp.uploadFile",
		structOf("name", text("known.txt"), "type", text("text/plain"), "bits", "<base64>"+base64.StdEncoding.EncodeToString([]byte("upload of ann"))+"</base64>"))
	if err != nil {
		return nil, err
	}
	if known.upload = wordpressUpload.FindString(answer); known.upload == "" {
		return nil, fmt.Errorf("the upload has no address: %.500q", answer)
	}
	login := curl + `/wp-login.php -o /dev/null -c - -b wordpress_test_cookie=x -d log=ann --data-urlencode "pwd=$ADMIN_PASSWORD" -d testcookie=1 | grep -o 'wordpress_[a-z0-9_]*[[:space:]].*%7C.*' | tr '\t' = | tr '\n' ';'`
	if known.cookie, err = p.sh(ctx, wordpressPod, login); err != nil || known.cookie == "" {
		return nil, errors.Join(err, errors.New("log in: no session"))
	}
	return known, wordpressHas(ctx, p, known)
}

var wordpressUpload = regexp.MustCompile(`/wp-content/uploads/[0-9/]+known[-\w]*\.txt`)

// text and structOf are values of XML-RPC.
func text(s string) string { return "<string>" + s + "</string>" }

func structOf(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		b.WriteString("<member><name>" + pairs[i] + "</name><value>" + pairs[i+1] + "</value></member>")
	}
	return "<struct>" + b.String() + "</struct>"
}

// wordpressCall calls WordPress's remote API as its administrator.
func wordpressCall(ctx context.Context, p Place, method string, params ...string) (string, error) {
	var b strings.Builder
	b.WriteString("<?xml version=\"1.0\"?><methodCall><methodName>" + method + "</methodName><params>")
	for _, param := range append([]string{"<int>0</int>", text("ann"), text("PASSWORD")}, params...) {
		b.WriteString("<param><value>" + param + "</value></param>")
	}
	b.WriteString("</params></methodCall>")
	answer, err := p.feed(ctx, wordpressPod, b.String(), "sh", "-c", `sed "s/PASSWORD/$ADMIN_PASSWORD/" | `+curl+`/xmlrpc.php -H 'Content-Type: text/xml' --data-binary @-`)
	if err == nil && (!strings.Contains(answer, "<methodResponse>") || strings.Contains(answer, "<fault>")) {
		err = fmt.Errorf("call %s: %.500q", method, answer)
	}
	return answer, err
}

func wordpressPost(ctx context.Context, p Place, title, content string) (string, error) {
	return wordpressCall(ctx, p, "wp.newPost", structOf("post_status", text("publish"), "post_title", text(title), "post_content", text(content)))
}

// writeWordPress writes drafts, which no page shows.
func writeWordPress(ctx context.Context, p Place, n int) error {
	_, err := wordpressCall(ctx, p, "wp.newPost", structOf("post_status", text("draft"), "post_title", text(fmt.Sprint("Draft ", n))))
	return err
}

var wordpressItem = regexp.MustCompile(`<title>(Ship [^<]*)</title>|<p>(It carried [^<]*)</p>`)

// wordpressHas reads the posts through the site's feed, the uploaded file, and a page that only who is logged in may see.
func wordpressHas(ctx context.Context, p Place, known wordpressKnown) error {
	feed, err := p.sh(ctx, wordpressPod, curl+"/index.php/feed/")
	if err != nil {
		return err
	}
	var want, got []string
	for i := range wordpressPosts {
		want = append(want, fmt.Sprintf("Ship %d", i), fmt.Sprintf("It carried %d barrels.", i*i))
	}
	for _, m := range wordpressItem.FindAllStringSubmatch(feed, -1) {
		got = append(got, m[1]+m[2])
	}
	// Those of one second come in any order.
	slices.Sort(want)
	slices.Sort(got)
	if strings.Join(got, "|") != strings.Join(want, "|") {
		return fmt.Errorf("the feed has %q, want %q: %.300q", got, want, feed)
	}
	return inTurn(
		func() error { return p.expect(ctx, "upload", wordpressPod, curl+known.upload, "upload of ann") },
		func() error {
			return p.expect(ctx, "page of the session", wordpressPod, curl+"/wp-admin/profile.php -b '"+known.cookie+"' | grep -q ann@example.com && echo hers", "hers")
		},
		func() error {
			return p.expect(ctx, "page without a session", wordpressPod, curl+"/wp-admin/profile.php -o /dev/null -w '%{http_code}'", "302")
		},
	)
}

func checkWordPress(ctx context.Context, p Place, known any) error {
	before, _ := known.(wordpressKnown)
	if before.upload == "" {
		return errors.New("nothing is known of what it had")
	}
	return inTurn(
		func() error { return wordpressHas(ctx, p, before) },
		func() error {
			return p.expect(ctx, "tables", "mariadb-0", "mariadb-check --socket=/tmp/mysqld.sock --extended wordpress >/tmp/check && ! grep -v 'OK$' /tmp/check", "")
		},
		func() error { _, err := wordpressPost(ctx, p, "After", "It is back."); return err },
		func() error {
			return p.expect(ctx, "new post", wordpressPod, curl+"/index.php/feed/ | grep -q '<p>It is back.</p>' && echo there", "there")
		},
		func() error {
			_, err := p.run(ctx, "", "get", "--raw", "/api/v1/namespaces/"+p.Namespace+"/services/wordpress:http/proxy/readme.html")
			return err
		},
	)
}
