package shop

import (
	"flag"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

var shots = flag.String("shots", "", "make the pictures of the README and of docs/shop.md, in this `folder`, instead of testing")

// TestShots is a tool: cd integration && go test ./shop -run Shots -shots "$PWD/../docs/images".
func TestShots(t *testing.T) {
	if *shots == "" {
		t.Skip("skipped: a tool, which wants -shots FOLDER")
	}
	file := func(name string) string { return filepath.Join(*shots, name+".webp") }
	address := start(t, "-seed", "1", "-fresh")
	b := open(t, address, desktop)
	b.await("half a minute is shown", 60*time.Second, `document.querySelector(".charts").dataset.points.split(";").length > 30`)
	b.await("the books balance", 30*time.Second, balanced)
	b.shoot(file("shop-calm"))

	b.click("#preset-payments-brown-out")
	b.await("the breaker opens", 60*time.Second, breaker("orders-payments", "open"))
	b.rest(8 * time.Second)
	b.await("the breaker is open", 30*time.Second, breaker("orders-payments", "open"))
	b.shoot(file("shop-brown-out"))
	eval[bool](b, `(document.querySelector("#h-calls").scrollIntoView(), true)`)
	b.await("an order waits", 30*time.Second, `document.querySelector('.list .f-open a, .list .f-undone a')`)
	eval[bool](b, `(document.querySelector('.list .f-open a, .list .f-undone a').click(), true)`)
	b.await("its timeline opens", 10*time.Second, `document.querySelectorAll("#order .gantt li").length >= 2`)
	b.shoot(file("shop-order"))
	eval[bool](b, `(document.querySelector("#order .close").click(), scrollTo(0, 0), true)`)

	b.click("#protection-off")
	b.await("customers feel it", 60*time.Second, `Number(document.getElementById("f-good").dataset.share) < 0.8`)
	b.rest(15 * time.Second)
	b.click("#protection-on")
	b.rest(12 * time.Second)
	b.shoot(file("shop-protection"))
}

// TestShotsMore makes those of another shop, so that each of the two takes less than three minutes.
func TestShotsMore(t *testing.T) {
	if *shots == "" {
		t.Skip("skipped: a tool, which wants -shots FOLDER")
	}
	file := func(name string) string { return filepath.Join(*shots, name+".webp") }
	address := start(t, "-seed", "1", "-fresh")
	dark := desktop
	dark.dark = true
	d := open(t, address, dark)
	d.await("half a minute is shown", 60*time.Second, `document.querySelector(".charts").dataset.points.split(";").length > 30`)
	d.click("#broker-off")
	d.await("the oldest event grows old", 40*time.Second, `Number(document.getElementById("outbox").dataset.age) > 12000`)
	d.shoot(file("shop-broker-dark"))
	phone := open(t, address, view{width: 380, height: 780, scale: 2, script: true, phone: true})
	phone.await("the stream lives", 10*time.Second, streams)
	phone.shoot(file("shop-phone"))
	d.do(chromedp.Click("#mend"))
	d.await("the outbox drains", 60*time.Second, drained)
}
