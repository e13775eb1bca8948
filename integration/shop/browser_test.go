package shop

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is a tab of a headless Chromium that shows the shop. What the page says on its console and whom it asks are kept until the end of
// the test, which fails for any error and any other host.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu    sync.Mutex
	host  string   // guarded by mu, as the rest
	asked int      // requests
	wrong []string // console errors, exceptions, requests to other hosts
	quiet bool     // the shop is gone on purpose: what is said about that is no error
}

// view is how a page is looked at.
type view struct {
	width, height int64
	scale         float64 // 0: 1
	dark          bool
	phone         bool
	script        bool
}

var desktop = view{width: 1440, height: 900, script: true}

// chromium returns the browser's path, or skips the test; with BACKSTAY_SERVERS=require it fails.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("BACKSTAY_SERVERS") == "require" {
		t.Fatal("no chromium in PATH, and BACKSTAY_SERVERS=require; on Debian: apt-get install chromium")
	}
	t.Skip("skipped: no chromium in PATH (BACKSTAY_SERVERS=require makes this a failure)")
	return ""
}

// open starts a browser on an address.
func open(t *testing.T, address string, v view) *browser {
	t.Helper()
	at, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, host: at.Host}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("hide-scrollbars", true), chromedp.Flag("no-proxy-server", true),
		chromedp.UserDataDir(t.TempDir()))
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop) // waits for the process
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	b.ctx = ctx
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as the context that it is started with
		t.Fatal(err)
	}
	t.Cleanup(b.check)

	var size []chromedp.EmulateViewportOption
	if v.phone {
		size = append(size, chromedp.EmulateMobile, chromedp.EmulateTouch)
	}
	if v.scale > 0 {
		size = append(size, chromedp.EmulateScale(v.scale))
	}
	b.do(chromedp.EmulateViewport(v.width, v.height, size...))
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	scheme := "light"
	if v.dark {
		scheme = "dark"
	}
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
	if !v.script {
		call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	}
	b.do(chromedp.Navigate(address))
	return b
}

// hear keeps what must not happen.
func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var wrong string
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		wrong = "exception: " + e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			wrong += " " + e.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			for _, arg := range e.Args {
				wrong += fmt.Sprintf("console: %s %s", arg.Description, arg.Value)
			}
		}
	case *cdplog.EventEntryAdded:
		if e.Entry.Level == cdplog.EntryLevelError || e.Entry.Level == cdplog.EntryLevelWarning {
			wrong = fmt.Sprintf("log: %s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		b.asked++
		if at, err := url.Parse(e.Request.URL); err != nil || at.Host != b.host {
			wrong = "request to another host: " + e.Request.URL
			b.wrong = append(b.wrong, wrong)
			return
		}
	}
	if wrong != "" && !b.quiet {
		b.wrong = append(b.wrong, wrong)
	}
}

// check fails the test for what was heard.
func (b *browser) check() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, wrong := range b.wrong {
		b.t.Error(wrong)
	}
	if b.asked == 0 {
		b.t.Error("heard of no request at all, want the page's own")
	}
}

// patience is how long any single action of the browser may take.
const patience = time.Minute

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, patience)
	defer stop()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

func call[P, R any](b *browser, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	result, err := chromedp.Call(b.ctx, command, params)
	if err != nil {
		b.t.Fatalf("%s: %v", command.Method, err)
	}
	return result
}

// eval returns the value of an expression of the page's.
func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, 2*patience)
	defer stop()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// await waits until an expression of the page's is true. (Not chromedp.Poll, which makes a function of a text; the page's policy refuses that.)
func (b *browser) await(what string, limit time.Duration, expression string) {
	b.t.Helper()
	began := time.Now()
	ok := eval[bool](b, fmt.Sprintf(`new Promise((done) => {
		const end = Date.now() + %d;
		const look = () => {
			let now = false;
			try { now = !!(%s); } catch {}
			if (now || Date.now() > end) done(now); else setTimeout(look, 50);
		};
		look();
	})`, limit.Milliseconds(), expression))
	if !ok {
		b.t.Fatalf("%s: not seen within %s; the page says: %s\n%s", what, limit, b.text("#p-status"), b.text("#p-calls")+"\n"+b.text("#p-outbox")+"\n"+b.text("#p-events"))
	}
	b.t.Logf("%s: after %.1f s", what, time.Since(began).Seconds())
}

// text returns the text of an element as it is shown, in one line.
func (b *browser) text(selector string) string {
	b.t.Helper()
	quoted, err := json.Marshal(selector)
	if err != nil {
		b.t.Fatal(err)
	}
	text := eval[string](b, `document.querySelector(`+string(quoted)+`)?.innerText ?? ""`)
	return strings.Join(strings.Fields(text), " ")
}

// click clicks an element with the mouse.
func (b *browser) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(selector))
}

// shoot saves what is seen as a WebP picture.
func (b *browser) shoot(file string) {
	b.t.Helper()
	quality := int64(82)
	picture := call(b, page.CaptureScreenshot, page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatWebp, Quality: &quality})
	if err := os.WriteFile(file, picture.Data, 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.t.Logf("%s: %d KB", file, len(picture.Data)>>10)
}

// rest lets the page go on for a while, so that there is something to see.
func (b *browser) rest(d time.Duration) {
	b.t.Helper()
	b.await("a while passes", d+time.Minute, `(window.restUntil ??= Date.now() + `+strconv.FormatInt(d.Milliseconds(), 10)+`) < Date.now() && delete window.restUntil`)
}
