package page_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/page"
)

var update = flag.Bool("update", false, "write the golden files")

// noon is when the tests' shops open.
var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

func newPage(f *fake) http.Handler {
	return page.New(page.Config{Snapshot: f.Snapshot, Order: f.Order, Actions: f})
}

// ask makes a request as a browser would on the page itself.
func ask(h http.Handler, method, target string, form url.Values, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://127.0.0.1:8080"+target, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestGolden compares the whole page, in a bad moment, with one that was looked at.
func TestGolden(t *testing.T) {
	f := newFake(noon, 7)
	f.s.Load = 4
	f.advance(noon.Add(30 * time.Second))
	_ = f.Preset(context.Background(), "payments-brown-out", true)
	f.advance(noon.Add(42 * time.Second))
	_ = f.Set(context.Background(), "broker", "off")
	f.advance(noon.Add(50 * time.Second))
	h := page.New(page.Config{
		Snapshot: func() page.Snapshot { s := f.Snapshot(); s.Orders = s.Orders[:8]; return s },
		Actions:  f,
	})
	got := ask(h, "GET", "/", nil).Body.String()
	got = regexp.MustCompile(`\?v=[0-9a-f]+|data-boot="\w+"`).ReplaceAllString(got, "")
	const file = "testdata/page.html"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
		for i := range min(len(g), len(w)) {
			if g[i] != w[i] {
				t.Fatalf("line %d of the page: got\n%s\nwant\n%s\n(go test -update writes a new one; look at it first)", i+1, g[i], w[i])
			}
		}
		t.Fatalf("got %d lines, want %d (go test -update writes a new file; look at it first)", len(g), len(w))
	}
	for _, name := range []string{"ZgotmplZ", " style=", " onclick=", "<script>"} {
		if strings.Contains(got, name) {
			t.Errorf("the page contains %q, which its policy refuses", name)
		}
	}
}

// TestSelfContained holds that the page asks nobody else for anything, and is small.
func TestSelfContained(t *testing.T) {
	f := newFake(noon, 1)
	f.advance(noon.Add(3 * time.Minute))
	h := newPage(f)
	body := ask(h, "GET", "/", nil).Body.String()
	all := []string{body}
	for _, m := range regexp.MustCompile(`(?:href|src)="(static/[^"]+)"`).FindAllStringSubmatch(body, -1) {
		w := ask(h, "GET", "/"+m[1], nil)
		if w.Code != http.StatusOK || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s: got %d, Cache-Control %q, want 200 and immutable", m[1], w.Code, w.Header().Get("Cache-Control"))
		}
		all = append(all, w.Body.String())
	}
	if len(all) != 4 {
		t.Errorf("got %d files besides the page, want 3", len(all)-1)
	}
	total := 0
	for _, text := range all {
		total += zipped(t, text)
		for _, address := range regexp.MustCompile(`(?i)\b(?:https?:)?//[\w.-]+\.\w+`).FindAllString(text, -1) {
			if address != "http://www.w3.org" { // a namespace's name
				t.Errorf("the page names another host: %s", address)
			}
		}
	}
	t.Logf("%d bytes with gzip", total)
	if limit := 120 << 10; total > limit {
		t.Errorf("got %d bytes with gzip, want at most %d", total, limit)
	}
	for _, link := range regexp.MustCompile(`(?:href|src|action)="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		if strings.HasPrefix(link[1], "/") {
			t.Errorf("link %q is not relative", link[1])
		}
	}
}

func TestHeaders(t *testing.T) {
	w := ask(newPage(newFake(noon, 1)), "GET", "/", nil)
	csp := w.Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("policy %q lacks %q", csp, want)
		}
	}
	if strings.Contains(csp, "unsafe") {
		t.Errorf("policy %q has an exception", csp)
	}
}

// TestStrangers holds that other sites can neither act nor rebind a name of theirs.
func TestStrangers(t *testing.T) {
	f := newFake(noon, 1)
	h := newPage(f)
	w := ask(h, "POST", "/do/kill", url.Values{"service": {"orders"}}, "Sec-Fetch-Site", "cross-site", "Origin", "http://elsewhere.example")
	if w.Code != http.StatusForbidden {
		t.Errorf("POST from another site: got %d, want 403", w.Code)
	}
	r := httptest.NewRequest("GET", "http://rebound.example/", nil)
	w = httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusMisdirectedRequest {
		t.Errorf("another host name: got %d, want 421", w.Code)
	}
	if got := f.did(); got != "" {
		t.Errorf("got actions %s, want none", got)
	}
	for _, host := range []string{"localhost:80", "[::1]:80", "10.1.2.3"} {
		r := httptest.NewRequest("GET", "http://"+host+"/", nil)
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusOK {
			t.Errorf("host %s: got %d, want 200", host, w.Code)
		}
	}
}

// TestMounted holds that forms come back to the page under any prefix.
func TestMounted(t *testing.T) {
	f := newFake(noon, 1)
	mux := http.NewServeMux()
	mux.Handle("/a/b/", http.StripPrefix("/a/b", newPage(f)))
	w := ask(mux, "POST", "/a/b/do/set", url.Values{"what": {"protection"}, "value": {"off"}})
	if w.Code != http.StatusSeeOther {
		t.Fatalf("got %d %s, want 303", w.Code, w.Body)
	}
	at, err := url.Parse("http://127.0.0.1/a/b/do/set")
	if err != nil {
		t.Fatal(err)
	}
	back, err := at.Parse(w.Header().Get("Location"))
	if err != nil || back.Path != "/a/b/" {
		t.Errorf("got back to %v, %v, want /a/b/", back, err)
	}
	if body := ask(mux, "GET", "/a/b/", nil).Body.String(); !strings.Contains(body, `data-set="off"`) {
		t.Error("the page does not show that protection is off")
	}
}

func TestActions(t *testing.T) {
	tests := []struct {
		name, path string
		form       url.Values
		status     int
		did        string
	}{
		{"preset", "preset", url.Values{"name": {"broker-down"}, "on": {"true"}}, 204, `preset "broker-down" true`},
		{"preset off", "preset", url.Values{"name": {"broker-down"}, "on": {"false"}}, 204, `preset "broker-down" false`},
		{"all off", "preset", url.Values{"name": {""}, "on": {"false"}}, 204, `preset "" false`},
		{"preset that cannot be used", "preset", url.Values{"name": {"kill-orders"}, "on": {"true"}}, 409, `preset "kill-orders" true`},
		{"chaos", "chaos", url.Values{"service": {"payments"}, "hang": {"on"}, "errors": {"0.3"}, "latency": {"200ms"}, "loseReply": {"0.1"}}, 204,
			"chaos payments {Down:false Hang:true Errors:0.3 Latency:200ms LoseReply:0.1 Flap:false}"},
		{"nothing wrong", "chaos", url.Values{"service": {"payments"}}, 204, "chaos payments {Down:false Hang:false Errors:0 Latency:0s LoseReply:0 Flap:false}"},
		{"share too large", "chaos", url.Values{"service": {"payments"}, "errors": {"1.5"}}, 400, ""},
		{"share is no number", "chaos", url.Values{"service": {"payments"}, "loseReply": {"NaN"}}, 400, ""},
		{"latency too long", "chaos", url.Values{"service": {"payments"}, "latency": {"2h"}}, 400, ""},
		{"latency negative", "chaos", url.Values{"service": {"payments"}, "latency": {"-1s"}}, 400, ""},
		{"load", "set", url.Values{"what": {"load"}, "value": {"25"}}, 204, "set load 25"},
		{"load too high", "set", url.Values{"what": {"load"}, "value": {"1e9"}}, 400, ""},
		{"load is no number", "set", url.Values{"what": {"load"}, "value": {"NaN"}}, 400, ""},
		{"protection", "set", url.Values{"what": {"protection"}, "value": {"off"}}, 204, "set protection off"},
		{"neither on nor off", "set", url.Values{"what": {"relay"}, "value": {"maybe"}}, 400, ""},
		{"no such switch", "set", url.Values{"what": {"gravity"}, "value": {"off"}}, 400, ""},
		{"kill", "kill", url.Values{"service": {"orders"}}, 409, "kill orders"},
		{"form too long", "kill", url.Values{"service": {strings.Repeat("x", 5000)}}, 400, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(noon, 1)
			h := newPage(f)
			w := ask(h, "POST", "/do/"+test.path, test.form, "Accept", "application/json")
			if w.Code != test.status {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, test.status)
			}
			if got := f.did(); got != test.did {
				t.Errorf("got actions %q, want %q", got, test.did)
			}
			// Without the script the same form answers with a page.
			w = ask(h, "POST", "/do/"+test.path, test.form)
			if want := map[int]int{204: 303}[test.status]; want != 0 && w.Code != want || want == 0 && w.Code != test.status {
				t.Errorf("without script: got %d, want 303 in place of 204, else %d", w.Code, test.status)
			}
			if w.Code >= 400 && !strings.Contains(w.Body.String(), `href="../"`) {
				t.Errorf("without script: got no way back in %s", w.Body)
			}
		})
	}
}

// TestBack holds that whoever sent a form, and is led back within the same half second, sees what it did.
func TestBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(noon, 1)
		h := newPage(f)
		pressed := func(value string) bool {
			return strings.Contains(ask(h, "GET", "/", nil).Body.String(), `value="`+value+`" id="protection-`+value+`" aria-pressed="true"`)
		}
		if !pressed("on") {
			t.Fatal("protection is off at the start")
		}
		for _, value := range []string{"off", "on"} {
			if w := ask(h, "POST", "/do/set", url.Values{"what": {"protection"}, "value": {value}}); w.Code != http.StatusSeeOther {
				t.Fatalf("got %d %s, want 303", w.Code, w.Body)
			}
			if !pressed(value) {
				t.Errorf("the page shows what was before %q was asked for", value)
			}
			var s page.Snapshot
			if err := json.Unmarshal(ask(h, "GET", "/snapshot.json", nil).Body.Bytes(), &s); err != nil || s.Protection != (value == "on") {
				t.Errorf("snapshot.json: got protection %t (%v) after %q was asked for", s.Protection, err, value)
			}
		}
	})
}

func TestOrder(t *testing.T) {
	f := newFake(noon, 1)
	f.advance(noon.Add(time.Minute))
	h := newPage(f)
	id := f.Snapshot().Orders[0].ID
	for target, want := range map[string]int{"/order?id=" + id: 200, "/order?id=" + id + "&part=1": 200, "/order?id=nobody": 404, "/order": 404} {
		w := ask(h, "GET", target, nil)
		if w.Code != want {
			t.Errorf("%s: got %d, want %d", target, w.Code, want)
		}
		if part := strings.Contains(target, "part"); strings.Contains(w.Body.String(), "<html") == part {
			t.Errorf("%s: got a whole page: %t", target, !part)
		}
	}
	w := ask(h, "GET", "/order?id=%3Cscript%3E", nil)
	if strings.Contains(w.Body.String(), "<script>") {
		t.Errorf("got the name of the order unescaped")
	}
}

// TestJSON holds that who asks for JSON gets the snapshot.
func TestJSON(t *testing.T) {
	f := newFake(noon, 1)
	f.advance(noon.Add(time.Minute))
	h := newPage(f)
	for target, header := range map[string]string{"/": "application/json", "/snapshot.json": "*/*"} {
		var s page.Snapshot
		if err := json.Unmarshal(ask(h, "GET", target, nil, "Accept", header).Body.Bytes(), &s); err != nil || len(s.Services) != 6 || !s.Books.Balanced {
			t.Errorf("%s: got %d services, balanced %t, %v", target, len(s.Services), s.Books.Balanced, err)
		}
	}
}

// TestEmpty holds that a shop that has nothing to show yet is a page all the same.
func TestEmpty(t *testing.T) {
	h := page.New(page.Config{Snapshot: func() page.Snapshot { return page.Snapshot{} }, Actions: nobody{}})
	for _, target := range []string{"/", "/?show=open", "/parts.json", "/snapshot.json"} {
		if w := ask(h, "GET", target, nil); w.Code != 200 || strings.Contains(w.Body.String(), "template:") {
			t.Errorf("%s: got %d", target, w.Code)
		}
	}
}

// nobody refuses everything.
type nobody struct{}

var errNobody = errors.New("nobody is here")

func (nobody) Preset(context.Context, string, bool) error      { return errNobody }
func (nobody) Chaos(context.Context, string, page.Chaos) error { return errNobody }
func (nobody) Set(context.Context, string, string) error       { return errNobody }
func (nobody) Kill(context.Context, string) error              { return errNobody }

// TestWords holds that no state is told by colour alone: each has its word and its icon in the page.
func TestWords(t *testing.T) {
	for health, word := range map[page.Health]string{page.OK: "healthy", page.Degraded: "degraded", page.Down: "down"} {
		f := newFake(noon, 1)
		f.advance(noon.Add(10 * time.Second))
		h := page.New(page.Config{Actions: f, Snapshot: func() page.Snapshot {
			s := f.Snapshot()
			s.Services[2].Health = health
			return s
		}})
		body := ask(h, "GET", "/", nil).Body.String()
		node := regexp.MustCompile(`(?s)id="n-payments".*?</g>`).FindString(body)
		icon := map[page.Health]string{page.OK: "ok", page.Degraded: "warn", page.Down: "bad"}[health]
		if !strings.Contains(node, ">"+word+"<") || !strings.Contains(node, fmt.Sprintf(`href="#i-%s"`, icon)) {
			t.Errorf("%s: got node %s, want the word %q and the icon %q", health, node, word, icon)
		}
	}
}
