package shop

import (
	"os"
	"testing"
	"time"
)

// TestAccessible runs axe-core over the page, light and dark, on a desk and on a phone, in order and broken. The file is not part of the tree:
// BACKSTAY_AXE names it (`.ci/run setup` installs it by npm).
func TestAccessible(t *testing.T) {
	long(t)
	file := os.Getenv("BACKSTAY_AXE")
	if file == "" {
		if os.Getenv("BACKSTAY_SERVERS") == "require" {
			t.Fatal("BACKSTAY_AXE names no axe.min.js, and BACKSTAY_SERVERS=require; npm install axe-core@4.14.1")
		}
		t.Skip("skipped: BACKSTAY_AXE names no axe.min.js (npm install axe-core@4.14.1)")
	}
	axe, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	address := start(t, "-seed", "1", "-fresh")
	for _, test := range []struct {
		name string
		view view
	}{
		{"desk", desktop},
		{"desk dark", view{width: 1440, height: 900, script: true, dark: true}},
		{"phone", view{width: 380, height: 800, script: true, phone: true}},
		{"phone dark", view{width: 380, height: 800, script: true, phone: true, dark: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := open(t, address, test.view)
			b.await("the stream lives", 10*time.Second, streams)
			b.await("there are orders", 30*time.Second, `document.querySelector(".list li a")`)
			_ = eval[any](b, string(axe)+"\n;1")
			if !test.view.dark { // only colours differ, and a broken shop shows more of them
				b.audit("in order")
			}
			eval[bool](b, `(document.getElementById("preset-payments-brown-out").click(), document.getElementById("broker-off").click(), document.querySelector(".list li a").click(), true)`)
			b.await("something is wrong", 30*time.Second, `document.getElementById("n-broker").dataset.health === "down" && !document.getElementById("order").hidden`)
			b.audit("broken")
			if wide := eval[float64](b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); wide > 0 {
				t.Errorf("the page is %v px wider than its window", wide)
			}
			eval[bool](b, `(document.getElementById("mend").click(), true)`)
			b.await("all is mended", 20*time.Second, pressed("broker-on"))
		})
	}
}

// audit fails the test for each serious or critical violation.
func (b *browser) audit(when string) {
	b.t.Helper()
	type violation struct{ ID, Impact, Help, Where string }
	found := eval[[]violation](b, `axe.run(document, { resultTypes: ["violations"] }).then((r) => r.violations.map((v) => (
		{ ID: v.id, Impact: v.impact, Help: v.help, Where: v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160) + " " + (n.any[0]?.message ?? "")).join(" | ") })))`)
	for _, v := range found {
		if v.Impact == "serious" || v.Impact == "critical" {
			b.t.Errorf("%s: %s (%s): %s: %s", when, v.ID, v.Impact, v.Help, v.Where)
		} else {
			b.t.Logf("%s: %s (%s): %s: %s", when, v.ID, v.Impact, v.Help, v.Where)
		}
	}
}
