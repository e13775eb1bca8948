package desk

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/backstay-go/backstay/examples/shop/internal/drill"
	"github.com/backstay-go/backstay/examples/shop/internal/fault"
	"github.com/backstay-go/backstay/examples/shop/internal/load"
	"github.com/backstay-go/backstay/examples/shop/internal/page"
)

// The desk does what the page's visitor wants.
var _ page.Actions = (*Desk)(nil)

// Preset implements page.Actions.
func (d *Desk) Preset(ctx context.Context, name string, on bool) error {
	if name == "" {
		return d.mend(ctx)
	}
	p, ok := drill.Find(name)
	if !ok {
		return fmt.Errorf("there is no preset %q", name)
	}
	if err := p.Do(ctx, plant{d}, on); err != nil {
		return err
	}
	d.mark(name, on && !p.Killer)
	if on {
		d.feed.Warn("preset: %s", p.Title)
	} else {
		d.feed.Info("preset off: %s", p.Title)
	}
	return nil
}

func (d *Desk) mark(preset string, on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active[preset] = on
}

// mend switches everything off that is wrong on purpose.
func (d *Desk) mend(ctx context.Context) error {
	for _, name := range d.breakable() {
		if err := d.remote(name).Put(ctx, "/faults", fault.Set{}); err != nil {
			return err
		}
	}
	p := plant{d}
	if err := p.Broker(true); err != nil {
		return err
	}
	if err := p.Relay(ctx, true); err != nil {
		return err
	}
	if err := p.Poison(ctx, false); err != nil {
		return err
	}
	d.mu.Lock()
	clear(d.active)
	d.mu.Unlock()
	d.feed.Info("all chaos off")
	return nil
}

// breakable returns the services that can be broken: all but the gateway, which serves the page.
func (d *Desk) breakable() []string {
	var names []string
	for _, name := range d.cfg.Services.Names() {
		if name != "gateway" {
			names = append(names, name)
		}
	}
	return names
}

// Chaos implements page.Actions.
func (d *Desk) Chaos(ctx context.Context, service string, chaos page.Chaos) error {
	if err := d.known(service); err != nil {
		return err
	}
	if chaos.Errors < 0 || chaos.Errors > 1 || chaos.LoseReply < 0 || chaos.LoseReply > 1 || chaos.Latency < 0 {
		return fmt.Errorf("shares are from 0 to 1, and a latency is not negative")
	}
	if err := (plant{d}).Faults(ctx, service, fault.Set(chaos)); err != nil {
		return err
	}
	d.feed.Warn("chaos of %s: %+v", service, chaos)
	return nil
}

func (d *Desk) known(service string) error {
	if slices.Contains(d.breakable(), service) {
		return nil
	}
	if service == "gateway" {
		return fmt.Errorf("the gateway serves this page, so it stays as it is")
	}
	return fmt.Errorf("there is no service %q", service)
}

// Set implements page.Actions.
func (d *Desk) Set(ctx context.Context, what, value string) error {
	on := value == "on"
	if what != "load" && !on && value != "off" {
		return fmt.Errorf("%s is switched on or off, not %q", what, value)
	}
	switch what {
	case "protection":
		return d.protect(ctx, on)
	case "broker":
		d.mark("broker-down", !on)
		return plant{d}.Broker(on)
	case "relay":
		return plant{d}.Relay(ctx, on)
	case "load":
		rate, err := strconv.ParseFloat(value, 64)
		if err != nil || rate < load.MinRate || rate > load.MaxRate {
			return fmt.Errorf("the load is %d to %d orders a second", load.MinRate, load.MaxRate)
		}
		d.cfg.Load.SetRate(rate)
		return nil
	}
	return fmt.Errorf("there is no switch %q", what)
}

func (d *Desk) protect(ctx context.Context, on bool) error {
	if err := d.cfg.Services.Protect(ctx, on); err != nil {
		return err
	}
	d.mu.Lock()
	d.protected = on
	d.mu.Unlock()
	if on {
		d.feed.Info("protection on")
	} else {
		d.feed.Warn("protection off: bare clients with blind retries")
	}
	return nil
}

// Kill implements page.Actions.
func (d *Desk) Kill(_ context.Context, service string) error {
	if err := d.known(service); err != nil {
		return err
	}
	return plant{d}.Kill(service)
}

// Plant is how the desk breaks the shop.
func (d *Desk) Plant() drill.Plant { return plant{d} }

// Breakable returns the services that a drill may break.
func (d *Desk) Breakable() []string { return d.breakable() }

type plant struct{ d *Desk }

// Faults implements drill.Plant.
func (p plant) Faults(ctx context.Context, service string, s fault.Set) error {
	return p.d.remote(service).Put(ctx, "/faults", s)
}

// Broker implements drill.Plant.
func (p plant) Broker(on bool) error { return p.d.cfg.Broker.Set(on) }

// Relay implements drill.Plant.
func (p plant) Relay(ctx context.Context, on bool) error {
	return p.d.remote("orders").Put(ctx, "/paused", !on)
}

// Poison implements drill.Plant.
func (p plant) Poison(ctx context.Context, on bool) error {
	return p.d.remote("orders").Put(ctx, "/poison", on)
}

// Kill implements drill.Plant.
func (p plant) Kill(service string) error {
	if err := p.d.cfg.Services.Kill(service); err != nil {
		return err
	}
	p.d.feed.Bad("kill -9 %s", service)
	return nil
}
