// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Colours that are read on white and on black: no background, middle tones.
var (
	ink  = color.RGBA{0x7d, 0x7d, 0x7d, 0xff}
	hues = []color.Color{
		color.RGBA{0x2b, 0x83, 0xd6, 0xff}, color.RGBA{0xe0, 0x6c, 0x1f, 0xff},
		color.RGBA{0x2f, 0x9e, 0x54, 0xff}, color.RGBA{0xb0, 0x5c, 0xc8, 0xff},
	}
)

func newPlot(title, x, y string) *plot.Plot {
	plot.DefaultFont.Variant = "Sans"
	plotter.DefaultFont.Variant = "Sans"
	p := plot.New()
	p.BackgroundColor = nil
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.TextStyle.Color = ink
	p.Legend.TextStyle.Color = ink
	p.Legend.Top = true
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Label.TextStyle.Color, a.Tick.Label.Color, a.Tick.Color = ink, ink, ink, ink
	}
	return p
}

func save(p *plot.Plot, file string, width, height vg.Length) error {
	c := vgsvg.New(width, height)
	// A margin, for readers whose font is wider than ours.
	p.Draw(draw.Crop(draw.New(c), 12, -20, 6, -8))
	return saveCanvas(c, file)
}

func saveCanvas(c *vgsvg.Canvas, file string) error {
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return err
	}
	// Whatever sans-serif the reader has, if not the plotting library's.
	text := strings.ReplaceAll(b.String(), "font-family:Liberation Sans", "font-family:'Liberation Sans',Helvetica,Arial,sans-serif")
	return os.WriteFile(file, []byte(text), 0o644)
}

// line is one curve: what is measured at each x, by name.
type line struct {
	label string
	at    map[float64]string
}

// curves draws medians over x.
func curves(rounds []figures, title, x, y string, lines []line, logY bool) *plot.Plot {
	p := newPlot(title, x, y)
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plainTicks{log: true}
	if logY {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plainTicks{log: true}
	} else {
		p.Y.Min, p.Y.Tick.Marker = 0, plainTicks{}
	}
	top := 0.0
	for i, l := range lines {
		var points plotter.XYs
		for _, at := range sorted(l.at) {
			if mid, ok := median(rounds, l.at[at]); ok && mid > 0 {
				points = append(points, plotter.XY{X: at, Y: mid})
				top = max(top, mid)
			}
		}
		if len(points) == 0 {
			return nil
		}
		curve, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			panic(err)
		}
		curve.Color, curve.Width = hues[i%len(hues)], vg.Points(1.5)
		dots.Color, dots.Shape = hues[i%len(hues)], draw.CircleGlyph{}
		p.Add(curve, dots)
		p.Legend.Add(l.label, curve, dots)
	}
	if !logY {
		p.Y.Min, p.Y.Max = 0, top*1.35 // room for the legend
	} else {
		p.Legend.Left = true
	}
	return p
}

func sorted(m map[float64]string) (keys []float64) {
	for k := range m {
		at := 0
		for at < len(keys) && keys[at] < k {
			at++
		}
		keys = append(keys[:at], append([]float64{k}, keys[at:]...)...)
	}
	return keys
}

// at makes a curve's points of a format for figures' names.
func at(values []int, format string) map[float64]string {
	m := map[float64]string{}
	for _, v := range values {
		m[float64(v)] = fmt.Sprintf(format, v)
	}
	return m
}

var (
	onRedis     = map[who]string{bare: "bare Redis", floor: "an empty module", ours: "key_evt_amqp", peer: "Redis's own notifications"}
	onPublisher = map[who]string{floor: "plain publisher", ours: "key_evt_amqp"}
)

// plotMainThread shows what each way costs Redis's main thread; ratios are over the
// empty module on the same kind of cores.
func plotMainThread(rounds []figures) *plot.Plot {
	of := func(w who, name, over string) bar {
		b := bar{who: w, figure: name + " main thread, ns/SET"}
		if over != "" {
			b.over = over + " main thread, ns/SET"
		}
		return b
	}
	return bars(rounds, "Redis's main thread", "CPU, ns a SET", onRedis, []barGroup{
		{"quiet cores", []bar{of(bare, "bare", ""), of(floor, "floor", "")}},
		{"nothing matches, 1 mask", []bar{of(ours, "1 mask, none matches", "floor")}},
		{"nothing matches, 100 masks", []bar{of(ours, "100 masks, none matches", "floor")}},
		{"every event, broker away", []bar{of(ours, "captured, broker away", "floor")}},
		{"every event, Pub/Sub", []bar{of(peer, "native AKE", "floor")}},
		{"busy cores", []bar{of(bare, "bare, busy", ""), of(floor, "floor, busy", "")}},
		{"every event, broker at work", []bar{of(ours, "captured, broker slower", "floor, busy")}},
		{"every event, outbox", []bar{of(ours, "outbox", "floor, busy")}},
	})
}

// pairs are groups of a plain publisher and the module: names hold %s for which.
func pairs(labels, names []string) (groups []barGroup) {
	for i, label := range labels {
		plainly := fmt.Sprintf(names[i], "plain")
		groups = append(groups, barGroup{label, []bar{{who: floor, figure: plainly},
			{who: ours, figure: fmt.Sprintf(names[i], "module"), over: plainly}}})
	}
	return groups
}

// latencies puts a direct publish beside the module's way, which begins with a
// command: a PING shows what that alone takes.
func latencies(rounds []figures) *plot.Plot {
	of := func(p string) []bar {
		direct := "latency, direct " + p + ", us"
		return []bar{{who: floor, figure: direct}, {who: ours, figure: "latency, module " + p + ", us", over: direct}}
	}
	return bars(rounds, "Latency, one event at a time", "us", map[who]string{floor: "direct publish", ours: "SET to message"},
		[]barGroup{{"median", of("p50")}, {"p99", of("p99")}})
}

// drawAll draws every plot whose figures were measured.
func drawAll(rounds []figures, dir string) error {
	short := []string{"persistent, classic", "transient, classic", "quorum"}
	var rates, costs []string
	var windowLines []line
	for i, k := range kinds {
		rates = append(rates, "delivery, "+k.name+", %s events/s")
		costs = append(costs, "delivery, "+k.name+", %s cost, us/event")
		windowLines = append(windowLines, line{short[i], at(windowSizes, "window %d, "+k.name+", module events/s")})
	}
	for _, d := range []struct {
		file   string
		p      *plot.Plot
		height vg.Length
	}{
		{"main-thread", plotMainThread(rounds), 300},
		{"delivery", bars(rounds, "Delivery", "events a second", onPublisher, pairs(short, rates)), 190},
		{"cost", bars(rounds, "Cost of delivery, Redis's main thread not counted", "CPU, us an event", onPublisher, pairs(short, costs)), 190},
		{"latency", latencies(rounds), 160},
		{"moderate", bars(rounds, "Cost at moderate load, Redis's main thread not counted", "CPU, us an event", onPublisher, pairs([]string{"1,000 a second", "10,000 a second"},
			[]string{"moderate, 1000/s, %s cost, us/event", "moderate, 10000/s, %s cost, us/event"})), 160},
		{"growth-masks", curves(rounds, "Masks that match nothing", "masks", "main thread, CPU ns a SET", []line{
			{"prefixes", at(maskCounts, "growth, %d masks, prefixes main thread, ns/SET")},
			{"literals anywhere", at(maskCounts, "growth, %d masks, literals anywhere main thread, ns/SET")},
			{"with stars", at(maskCounts, "growth, %d masks, with stars main thread, ns/SET")}}, false), 230},
		{"growth-keys-main", curves(rounds, "Length of keys: main thread", "bytes", "CPU ns a SET", []line{
			{"bare", at(keySizes, "growth, keys of %d B, bare main thread, ns/SET")},
			{"filtered", at(keySizes, "growth, keys of %d B, filtered main thread, ns/SET")},
			{"stored", at(keySizes, "growth, keys of %d B, stored main thread, ns/SET")}}, false), 230},
		{"growth-keys-delivery", curves(rounds, "Length of keys: delivery", "bytes", "events a second", []line{
			{"plain", at(keySizes, "growth, keys of %d B, plain events/s")},
			{"module", at(keySizes, "growth, keys of %d B, module events/s")}}, false), 230},
		{"growth-keys-memory", curves(rounds, "Length of keys: memory of a stored event", "bytes", "bytes above the body", []line{
			{"module", at(keySizes, "growth, keys of %d B above the body, bytes/event")}}, false), 230},
		{"growth-list", curves(rounds, "Events in the list: time to drain", "events", "ms", []line{
			{"connect to last confirm", at(listLengths, "growth, list of %d drained in, ms")}}, true), 230},
		{"windows", curves(rounds, "max_inflight", "events in flight", "events a second", windowLines, false), 230},
		{"buffers", curves(rounds, "buffer_limit", "MiB", "SETs a second under overload", []line{
			{"module", at(bufferSizes, "buffer %d MiB SETs/s")}}, false), 230},
	} {
		if d.p == nil {
			continue
		}
		if err := save(d.p, filepath.Join(dir, d.file+".svg"), 520, d.height); err != nil {
			return err
		}
	}
	return nil
}
