package shop

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// Expressions of the page's that the tests wait for.
const (
	closed   = `!document.querySelector('[data-breaker="open"],[data-breaker="half-open"]')`
	balanced = `document.getElementById("books").dataset.balanced === "true" && Number(document.getElementById("books").dataset.violations) === 0`
	flowing  = `Number(document.getElementById("f-good").dataset.share) > 0.9`
	drained  = `Number(document.getElementById("outbox").dataset.age) < 2000`
	streams  = `document.getElementById("live").dataset.state === "live"`
)

// breaker is true when an edge's breaker is in one of some states.
func breaker(edge string, states ...string) string {
	return `["` + strings.Join(states, `","`) + `"].includes(document.getElementById("c-` + edge + `").dataset.breaker)`
}

// pressed is true when a button is down.
func pressed(id string) string {
	return `document.getElementById("` + id + `").getAttribute("aria-pressed") === "true"`
}

// TestPresets clicks each preset, sees on the page what it is for, and mends it.
func TestPresets(t *testing.T) {
	long(t)
	address := start(t, "-seed", "1", "-fresh")
	b := open(t, address, desktop)
	b.await("the stream lives", 10*time.Second, streams)
	b.await("customers are served", 60*time.Second, flowing)
	b.await("the books balance", 30*time.Second, balanced)

	steps := []struct {
		preset string
		see    func()
	}{
		{"payments-brown-out", func() {
			b.await("payments is marked", 20*time.Second, `document.getElementById("n-payments").dataset.health !== "ok"`)
			b.await("its edge is marked", 30*time.Second, `document.getElementById("e-orders-payments").dataset.health !== "ok"`)
			b.await("the breaker opens", 45*time.Second, breaker("orders-payments", "open", "half-open"))
			b.await("the page says why", 20*time.Second, `document.querySelector("#c-orders-payments .why")?.innerText.length > 10`)
			t.Logf("reason shown: %s", b.text("#c-orders-payments .why"))
			b.await("customers are served all the same", 30*time.Second, flowing)
		}},
		{"retry-storm", func() {
			b.await("its edge is marked", 30*time.Second, `document.getElementById("e-orders-inventory").dataset.health !== "ok"`)
			b.rest(8 * time.Second)
			// Two of three attempts fail and three are allowed, which would be more than two for each call; the budget gives one in ten.
			if n := eval[float64](b, `Number(document.getElementById("c-orders-inventory").dataset.attempts)`); n < 1 || n > 1.5 {
				t.Errorf("got %.2f attempts for each call, want at most 1.5: the budget caps them", n)
			}
		}},
		{"reply-lost", func() {
			b.await("the fault is shown at payments", 20*time.Second, `document.querySelector("#n-payments .fault").textContent.includes("replies lost")`)
			b.await("customers are served all the same", 30*time.Second, flowing)
		}},
		{"poison-event", func() {
			b.await("an event is parked", 60*time.Second, `Number(document.getElementById("parked").textContent) > 0`)
			b.await("the others go on", 30*time.Second, drained)
		}},
		{"broker-down", func() {
			b.await("the broker is shown down", 20*time.Second, `document.getElementById("n-broker").dataset.health === "down"`)
			b.await("the oldest event grows old", 30*time.Second, `Number(document.getElementById("outbox").dataset.age) > 5000`)
			b.await("customers are served all the same", 20*time.Second, flowing)
		}},
	}
	for _, step := range steps {
		t.Log("-- " + step.preset)
		b.click("#preset-" + step.preset)
		b.await(step.preset+" is on", 10*time.Second, pressed("preset-"+step.preset))
		step.see()
		b.await("the books balance", 10*time.Second, balanced)
		b.click("#mend")
		b.await("all presets are off", 10*time.Second, `!document.querySelector('.presets [aria-pressed="true"]')`)
		b.await("the outbox drains", 60*time.Second, drained)
		b.await("the breakers close", 60*time.Second, closed)
		b.await("customers are served", 60*time.Second, flowing)
		b.await("the books balance", 10*time.Second, balanced)
	}
	s := look(t, address)
	if s.Books.Violations != 0 || s.Books.Passed == 0 || len(s.Books.Checks) < 4 {
		t.Errorf("at the end: got books %+v, want at least 4 equations checked without a violation", s.Books)
	}
}

// TestProtection sees the difference that protection makes: the same fault, and fewer customers served without it.
func TestProtection(t *testing.T) {
	long(t)
	address := start(t, "-seed", "1", "-fresh")
	b := open(t, address, desktop)
	b.await("customers are served", 60*time.Second, flowing)
	b.click("#preset-payments-brown-out")
	b.await("payments is marked", 20*time.Second, `document.getElementById("n-payments").dataset.health !== "ok"`)
	b.await("the breaker opens", 45*time.Second, breaker("orders-payments", "open", "half-open"))
	b.await("customers are served all the same", 30*time.Second, flowing)
	b.click("#protection-off")
	b.await("protection is off", 10*time.Second, pressed("protection-off"))
	b.await("customers feel it", 60*time.Second, `Number(document.getElementById("f-good").dataset.share) < 0.8`)
	b.click("#protection-on")
	b.await("protection is on", 10*time.Second, pressed("protection-on"))
	b.await("customers are served again", 60*time.Second, flowing)
	b.click("#mend")
	b.await("the breakers close", 60*time.Second, closed)
	b.await("the books balance", 10*time.Second, balanced)
}

// TestKill ends the process of the sagas with SIGKILL by the page's button, and sees it come back with the books in balance.
func TestKill(t *testing.T) {
	long(t)
	address := start(t, "-seed", "1", "-fresh", "-processes")
	b := open(t, address, desktop)
	b.await("customers are served", 60*time.Second, flowing)
	before := look(t, address)
	for _, preset := range []string{"#preset-kill-orders", "#kill-payments button"} {
		b.click(preset)
	}
	b.await("both were started again", 30*time.Second, `["orders", "payments"].every((s) => document.getElementById("s-" + s).innerText.includes("restarted 1×"))`)
	b.await("customers are served again", 60*time.Second, flowing)
	b.await("the breakers close", 60*time.Second, closed)
	b.await("the books balance", 10*time.Second, balanced)
	after := look(t, address)
	for i, s := range after.Services {
		if killed := s.Name == "orders" || s.Name == "payments"; (s.PID != before.Services[i].PID) != killed {
			t.Errorf("%s: pid %d before, %d after; want another one: %t", s.Name, before.Services[i].PID, s.PID, killed)
		}
	}
}

// TestByHand uses the switches of one service, the load, an order's timeline, the pause and the keyboard.
func TestByHand(t *testing.T) {
	long(t)
	address := start(t, "-seed", "1", "-fresh")
	b := open(t, address, desktop)
	b.await("customers are served", 60*time.Second, flowing)

	b.do(chromedp.SetValue(`#chaos-shipping [name="latency"]`, "500ms"))
	eval[bool](b, `document.querySelector('#chaos-shipping [name="latency"]').dispatchEvent(new Event("change", { bubbles: true }))`)
	b.await("shipping is slow on purpose", 10*time.Second, `document.querySelector("#n-shipping .fault").textContent.includes("500 ms")`)
	b.click("#mend")
	b.await("it is mended", 10*time.Second, `!document.querySelector("#n-shipping .fault")`)

	b.click("#relay-off")
	b.await("the relay is paused", 10*time.Second, pressed("relay-off"))
	b.click("#relay-on")
	b.await("the relay runs", 10*time.Second, pressed("relay-on"))

	b.await("an order is over", 20*time.Second, `document.querySelector(".list .f-confirmed a")`)
	b.click(".list li a")
	b.await("its timeline opens", 10*time.Second, `document.querySelectorAll("#order .gantt li").length >= 2`)
	b.await("the pivot is marked", 10*time.Second, `document.querySelector("#order").innerText.length > 20`)
	b.click("#order .close")
	b.await("it closes", 5*time.Second, `document.getElementById("order").hidden`)

	b.click("#pause")
	b.await("updates are paused", 5*time.Second, `document.getElementById("live").dataset.state === "paused"`)
	at := b.text("#p-about time")
	eval[bool](b, `new Promise((done) => setTimeout(() => done(true), 1500))`)
	if now := b.text("#p-about time"); now != at {
		t.Errorf("paused at %s, got %s a while later", at, now)
	}
	b.click("#pause")
	b.await("updates go on", 10*time.Second, streams)

	// By the keyboard alone: focus stays where it is while the page changes under it.
	eval[bool](b, `(document.getElementById("load").focus(), true)`)
	load := b.text("output")
	b.do(chromedp.KeyEvent(kb.ArrowRight))
	b.await("the load went up", 10*time.Second, `document.getElementById("load").getAttribute("value") !== "`+strings.TrimSuffix(load, "/s")+`"`)
	if id := eval[string](b, `document.activeElement.id`); id != "load" {
		t.Errorf("the focus went to %q, want it to stay on the slider", id)
	}
}

// TestNoScript reads the page and acts on it with JavaScript switched off.
func TestNoScript(t *testing.T) {
	long(t)
	address := start(t, "-seed", "1", "-fresh")
	v := desktop
	v.script = false
	b := open(t, address, v)
	for _, heading := range []string{"Traffic", "System", "Books", "Orders", "Outbox", "What happened"} {
		if text := b.text("main"); !strings.Contains(text, heading) {
			t.Errorf("the page without script lacks %q", heading)
		}
	}
	if !look(t, address).Protection {
		t.Fatal("protection is off at the start")
	}
	if _, err := chromedp.RunResponse(b.ctx, chromedp.Click("#protection-off")); err != nil {
		t.Fatal(err)
	}
	if at := eval[string](b, `location.pathname`); at != "/" {
		t.Errorf("the form led to %s, want back to the page", at)
	}
	if look(t, address).Protection || b.text(`#set-protection [aria-pressed="true"]`) != "Off" {
		t.Error("protection is on after the form was sent")
	}
}
