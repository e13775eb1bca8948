package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"html/template"
	"mime"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

//go:embed static
var static embed.FS

//go:embed templates
var templates embed.FS

// Config is what the page is made of.
type Config struct {
	// Snapshot makes what is shown. It is called at most twice a second, whatever the number of viewers, and once more for each reader who
	// comes just after a form was sent; by two at the same time then, or when it takes longer than half a second. Required.
	Snapshot func() Snapshot

	// Actions does what visitors ask for. Required.
	Actions Actions

	// Order finds one order. Nil: only the orders of the latest snapshot can be opened.
	Order func(id string) (Order, bool)

	// Viewers is how many streams of updates may be open; more are refused with 503, and poll. 0: 64.
	Viewers int

	// Hosts are names under which the page may be reached, besides localhost and IP addresses. All others are refused: a page elsewhere
	// could point a name of its own here (DNS rebinding), and would then be of the same origin.
	Hosts []string
}

// New returns the page as a handler. It uses relative links only, so that it works behind [http.StripPrefix] with any prefix that ends in a slash.
// It starts no goroutine. A stream of updates ends with its request's context: a server that is to stop cancels its base context.
func New(config Config) http.Handler {
	if config.Snapshot == nil || config.Actions == nil {
		panic("page: New needs Snapshot and Actions")
	}
	if config.Viewers == 0 {
		config.Viewers = 64
	}
	p := &page{
		config: config,
		html:   parse(),
		assets: load(),
		frames: frames{period: Period, boot: strconv.FormatInt(time.Now().UnixMilli(), 36)},
		seats:  make(chan struct{}, config.Viewers),
	}
	p.frames.render = p.render

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.index)
	mux.HandleFunc("GET /snapshot.json", p.snapshot)
	mux.HandleFunc("GET /parts.json", p.parts)
	mux.HandleFunc("GET /live", p.live)
	mux.HandleFunc("GET /order", p.order)
	mux.HandleFunc("GET /static/{name}", p.static)
	mux.HandleFunc("POST /do/preset", p.doPreset)
	mux.HandleFunc("POST /do/chaos", p.doChaos)
	mux.HandleFunc("POST /do/set", p.doSet)
	mux.HandleFunc("POST /do/kill", p.doKill)
	return p.guard(http.NewCrossOriginProtection().Handler(mux))
}

// page is the handler's state. Only frames and seats change.
type page struct {
	config Config
	html   *template.Template
	assets map[string]asset
	frames frames
	seats  chan struct{} // one taken by each stream
}

// policy lets the page load what it serves itself, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// guard refuses foreign host names, and sets what every answer carries.
func (p *page) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "same-origin")
		header.Set("Cache-Control", "no-store")
		if !p.known(r.Host) {
			http.Error(w, "this page is served for localhost and IP addresses only, not for "+strconv.Quote(r.Host), http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (p *page) known(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "localhost" || net.ParseIP(host) != nil {
		return true
	}
	for _, name := range p.config.Hosts {
		if strings.EqualFold(host, name) {
			return true
		}
	}
	return false
}

// index serves the whole page, or the snapshot to who asks for JSON.
func (p *page) index(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		p.snapshot(w, r)
		return
	}
	f := p.frames.fresh()
	p.write(w, "page", struct {
		Boot   string
		Title  string
		Parts  map[string]template.HTML
		Assets map[string]asset
		Show   string
	}{p.frames.boot, f.title, f.parts, p.assets, show(r)})
}

// show is which orders are listed: all, or those of one state.
func show(r *http.Request) string {
	switch s := r.URL.Query().Get("show"); s {
	case "open", "undone", "confirmed", "parked":
		return s
	default:
		return "all"
	}
}

// order serves one order: a page of its own, or with part=1 what goes into the main page.
func (p *page) order(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("id")
	f := p.frames.now()
	o, ok := f.order(id)
	if p.config.Order != nil {
		o, ok = p.config.Order(id)
	}
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		p.write(w, "problem", problem{"There is no order " + strconv.Quote(id) + " any more.", p.assets})
		return
	}
	name := "order-page"
	if r.URL.Query().Get("part") != "" {
		name = "order"
	}
	p.write(w, name, struct {
		orderView
		Assets map[string]asset
	}{viewOrder(o, time.Now()), p.assets})
}

// problem is a page that says what went wrong.
type problem struct {
	Text   string
	Assets map[string]asset
}

func (p *page) snapshot(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(p.frames.fresh().snapshot); err != nil {
		return // the reader went away
	}
}

// write renders a template whole before it sends anything.
func (p *page) write(w http.ResponseWriter, name string, data any) {
	var b bytes.Buffer
	if err := p.html.ExecuteTemplate(&b, name, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes())
}

// asset is a file that the page loads.
type asset struct {
	Version string // of its content, for its address
	kind    string
	content []byte
}

func load() map[string]asset {
	files, err := static.ReadDir("static")
	if err != nil {
		panic(err) // embedded
	}
	assets := make(map[string]asset, len(files))
	for _, file := range files {
		content, err := static.ReadFile("static/" + file.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(content)
		assets[file.Name()] = asset{hex.EncodeToString(sum[:6]), mime.TypeByExtension(path.Ext(file.Name())), content}
	}
	return assets
}

func (p *page) static(w http.ResponseWriter, r *http.Request) {
	a, ok := p.assets[r.PathValue("name")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if r.URL.Query().Get("v") == a.Version {
		w.Header().Set("Cache-Control", "max-age=31536000, immutable")
	}
	w.Header().Set("Content-Type", a.kind)
	_, _ = w.Write(a.content)
}
