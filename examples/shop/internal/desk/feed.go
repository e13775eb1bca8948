package desk

import (
	"fmt"
	"slices"
)

// since is the question for a service's report, with the notes that are new.
func (d *Desk) since(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Sprint("/report?after=", d.seen[name].n)
}

// collect adds the new notes to the feed; with mu held. A process that was started again counts from one: its first notes come with the report after the one
// that told its new number.
func (d *Desk) collect() {
	fresh := d.feed.After(d.seen[""].n)
	if len(fresh) > 0 {
		d.seen[""] = seen{n: fresh[len(fresh)-1].N}
	}
	for name, r := range d.view.reports {
		known := d.seen[name]
		if known.pid != r.PID {
			d.seen[name] = seen{pid: r.PID}
			if known.pid != 0 {
				continue
			}
		}
		if len(r.Notes) > 0 {
			fresh = append(fresh, r.Notes...)
			d.seen[name] = seen{pid: r.PID, n: r.Notes[len(r.Notes)-1].N}
		}
	}
	for _, n := range fresh {
		if n.Service == "" {
			n.Service = "shop"
		}
		d.notes = append(d.notes, n)
	}
	slices.SortStableFunc(d.notes, func(a, b note) int { return b.At.Compare(a.At) })
	d.notes = d.notes[:min(len(d.notes), keepNotes)]
}
